"""A stack of Mamba blocks as an ESPnet encoder."""

from mambaasr.checks import check_counts, check_flags, check_sizes
from mambaasr.encoder.base import StackEncoder
from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.mixer_conf import make_mixer, mixer_options


class MambaEncoder(StackEncoder):
    """Blocks around Mamba mixers. A scan has an order, so it needs no positions.

    With the defaults a plain bidirectional stack ("ExtBiMamba" of arXiv 2405.12609 with
    ``direction: outer``); ``linear_units`` adds the feed-forward modules of its ablation.

    Args:
        input_size: width of the features.
        output_size: width of the encoder (d_model).
        num_blocks: number of blocks; with 0 the input layer and a norm are all.
        linear_units: width inside the feed-forward modules; 0 leaves them out.
        macaron_style: a feed-forward module on either side of the mixer.
        use_cnn_module: put in the convolution module of Conformer.
        cnn_module_kernel: its kernel.
        cnn_module_norm: "layer_norm" or "batch_norm".
        norm: before each module of a block and of the output, "layer_norm" or "rms_norm".
        activation_type: in feed-forward and convolution modules: "swish" (Conformer's), "gelu"
            (Speech Slytherin's published code) or "relu".
        mixer: "mamba1" or "mamba2".
        direction: "uni" (causal, the convolution module too), "inner" or "outer".
        merge: how two directions meet: "sum", "mean" or "concat".
        d_state, d_conv, expand: of the mixer; ``d_state`` null is 16 for mamba1, 128 for mamba2.
        mixer_dropout_rate: inside the mixer, after its input and output projections.
        mixer_conf: further options of :class:`mambaasr.layers.mamba.Mamba` or
            :class:`mambaasr.layers.mamba2.Mamba2`, such as ``headdim``.
        input_layer, dropout_rate, positions, stochastic_depth_rate, lookahead_kernel,
            interctc_layer_idx, interctc_use_conditioning: see
            :class:`mambaasr.encoder.base.StackEncoder`; ``dropout_rate`` also acts on residual
            branches and inside feed-forward modules.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        input_size,
        output_size=256,
        num_blocks=12,
        linear_units=0,
        macaron_style=False,
        use_cnn_module=False,
        cnn_module_kernel=31,
        cnn_module_norm="layer_norm",
        norm="layer_norm",
        activation_type="swish",
        mixer="mamba1",
        direction="outer",
        merge="sum",
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
        check_flags(macaron_style=macaron_style, use_cnn_module=use_cnn_module)
        check_counts(num_blocks=num_blocks)
        check_sizes(type(self).__name__, cnn_module_kernel=cnn_module_kernel)
        blocks = (
            EncoderBlock(
                output_size,
                make_mixer(
                    mixer,
                    direction,
                    output_size,
                    merge,
                    d_state=d_state,
                    d_conv=d_conv,
                    expand=expand,
                    dropout_rate=mixer_dropout_rate,
                    **mixer_options(mixer_conf),
                ),
                hidden=linear_units,
                macaron=macaron_style,
                kernel_size=cnn_module_kernel if use_cnn_module else 0,
                conv_norm=cnn_module_norm,
                norm=norm,
                activation=activation_type,
                causal=direction == "uni",
                dropout_rate=dropout_rate,
            )
            for _ in range(num_blocks)
        )
        super().__init__(
            input_size,
            output_size,
            blocks,
            input_layer=input_layer,
            dropout_rate=dropout_rate,
            positions=positions,
            norm=norm,
            stochastic_depth_rate=stochastic_depth_rate,
            lookahead_kernel=lookahead_kernel,
            interctc_layer_idx=interctc_layer_idx,
            interctc_use_conditioning=interctc_use_conditioning,
        )
