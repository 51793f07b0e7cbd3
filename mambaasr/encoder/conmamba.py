"""ConMamba: the Conformer block with a Mamba mixer in the place of self-attention."""

from mambaasr.encoder.mamba import MambaEncoder


class ConMambaEncoder(MambaEncoder):
    """ConMamba (arXiv 2407.09732): macaron feed-forward, BiMamba, convolution module.

    The block is the paper's: shared projections for both directions ("inner"), their mean,
    LayerNorm in the convolution module. ``direction: outer`` gives ConExtBiMamba
    (arXiv 2405.12609).

    Args and Raises: see :class:`mambaasr.encoder.mamba.MambaEncoder`.
    """

    def __init__(
        self,
        input_size,
        output_size=256,
        num_blocks=12,
        linear_units=1024,
        macaron_style=True,
        use_cnn_module=True,
        cnn_module_kernel=31,
        cnn_module_norm="layer_norm",
        norm="layer_norm",
        activation_type="swish",
        mixer="mamba1",
        direction="inner",
        merge="mean",
        d_state=None,
        d_conv=4,
        expand=2,
        mixer_dropout_rate=0.0,
        mixer_conf=None,
        input_layer="conv2d",
        dropout_rate=0.1,
        positions="none",
        stochastic_depth_rate=0.0,
        lookahead_kernel=0,
        interctc_layer_idx=(),
        interctc_use_conditioning=False,
    ):
        super().__init__(
            input_size,
            output_size=output_size,
            num_blocks=num_blocks,
            linear_units=linear_units,
            macaron_style=macaron_style,
            use_cnn_module=use_cnn_module,
            cnn_module_kernel=cnn_module_kernel,
            cnn_module_norm=cnn_module_norm,
            norm=norm,
            activation_type=activation_type,
            mixer=mixer,
            direction=direction,
            merge=merge,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            mixer_dropout_rate=mixer_dropout_rate,
            mixer_conf=mixer_conf,
            input_layer=input_layer,
            dropout_rate=dropout_rate,
            positions=positions,
            stochastic_depth_rate=stochastic_depth_rate,
            lookahead_kernel=lookahead_kernel,
            interctc_layer_idx=interctc_layer_idx,
            interctc_use_conditioning=interctc_use_conditioning,
        )
