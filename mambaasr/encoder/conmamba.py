"""ConMamba: the Conformer block with a Mamba mixer in the place of self-attention."""

from mambaasr.configurable import configurable
from mambaasr.encoder.mamba import MambaEncoder
from mambaasr.layers.mixer_conf import MixerConf


@configurable(
    linear_units=1024,
    macaron_style=True,
    use_cnn_module=True,
    mixer_conf=MixerConf(direction="inner", merge="mean"),
)
class ConMambaEncoder(MambaEncoder):
    """ConMamba (arXiv 2407.09732): macaron feed-forward, BiMamba, convolution module.

    The ``mamba`` encoder with the paper's block for defaults: shared projections for both
    directions ("inner"), their mean, LayerNorm in the convolution module. ``mixer_conf: {direction:
    outer}`` gives ConExtBiMamba (arXiv 2405.12609).

    Args and Raises: see :class:`mambaasr.encoder.mamba.MambaEncoder`.
    """
