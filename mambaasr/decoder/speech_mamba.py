"""The decoder of Speech-Mamba."""

from mambaasr.decoder.mamba import MambaDecoder


class SpeechMambaDecoder(MambaDecoder):
    """Speech-Mamba's (arXiv 2409.18654): 3 x [Mamba, cross-attention, Mamba], LayerNorm.

    Published are these defaults: no self-attention, no feed-forward module, RMSNorm before each
    part, 4 heads, d_state 256, sinusoidal positions, no dropout on the mixers' residual branches.
    Ours are the incremental state (they compute the whole prefix anew at each token) and positions
    for any length (their table ends at 2500).

    Args and Raises: see :class:`mambaasr.decoder.mamba.MambaDecoder`, but ``dropout_rate`` leaves
    the mixers' branches alone.
    """

    _drop_mixers = False

    def __init__(
        self,
        vocab_size,
        encoder_output_size,
        num_blocks=3,
        attention_heads=4,
        linear_units=0,
        mixer="mamba1",
        mamba_before=1,
        mamba_after=1,
        d_state=256,
        d_conv=4,
        expand=2,
        mixer_conf=None,
        norm="rms_norm",
        positions="sinusoidal",
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
        src_attention_dropout_rate=0.1,
    ):
        super().__init__(
            vocab_size,
            encoder_output_size,
            num_blocks=num_blocks,
            attention_heads=attention_heads,
            linear_units=linear_units,
            mixer=mixer,
            mamba_before=mamba_before,
            mamba_after=mamba_after,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            mixer_conf=mixer_conf,
            norm=norm,
            positions=positions,
            dropout_rate=dropout_rate,
            mixer_dropout_rate=mixer_dropout_rate,
            src_attention_dropout_rate=src_attention_dropout_rate,
        )
