"""The decoder of Speech-Mamba."""

from mambaasr.configurable import configurable
from mambaasr.decoder.mamba import MambaDecoder
from mambaasr.layers.mixer_conf import CausalMixerConf


@configurable(
    num_blocks=3,
    linear_units=0,
    mamba_after=1,
    mixer_conf=CausalMixerConf(d_state=256),
    norm="rms_norm",
    positions="sinusoidal",
    src_attention_dropout_rate=0.1,
)
class SpeechMambaDecoder(MambaDecoder):
    """Speech-Mamba's (arXiv 2409.18654): 3 x [Mamba, cross-attention, Mamba], LayerNorm.

    Published are these defaults: no self-attention, no feed-forward module, RMSNorm before each
    part, 4 heads, d_state 256, sinusoidal positions, no dropout on the mixers' residual branches.
    Ours are the incremental state (they compute the whole prefix anew at each token) and positions
    for any length (their table ends at 2500).

    Args and Raises: see :class:`mambaasr.decoder.mamba.MambaDecoder`, but ``dropout_rate`` leaves
    the mixers' branches alone.
    """

    drop_mixers = False
