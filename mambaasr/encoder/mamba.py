"""A stack of Mamba blocks as an ESPnet encoder."""

from typing import Annotated

from mambaasr.checks import check_counts, check_flags, check_sizes
from mambaasr.configurable import configurable
from mambaasr.encoder.base import StackEncoder
from mambaasr.layers.activation import ACTIVATIONS
from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.conv_module import NORMS as CONV_NORMS
from mambaasr.layers.mixer_conf import MixerConf
from mambaasr.layers.norm import NORMS


@configurable()
class MambaEncoder(StackEncoder):
    """Blocks around Mamba mixers. A scan has an order, so it needs no positions.

    With the defaults a plain bidirectional stack ("ExtBiMamba" of arXiv 2405.12609: two whole
    mixers and their sum); ``linear_units`` adds the feed-forward modules of its ablation.

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
        mixer_conf: see :class:`mambaasr.layers.mixer_conf.MixerConf`; with ``direction: uni`` the
            convolution module is causal too.
        dropout_rate: after the input layer and the look-ahead convolution, on residual branches
            and inside feed-forward modules.
        **stack: further options of :class:`mambaasr.encoder.base.StackEncoder`.

    Raises:
        ValueError: an option is unknown or a size impossible.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int = 256,
        num_blocks: int = 12,
        linear_units: int = 0,
        macaron_style: bool = False,
        use_cnn_module: bool = False,
        cnn_module_kernel: int = 31,
        cnn_module_norm: Annotated[str, CONV_NORMS] = "layer_norm",
        norm: Annotated[str, NORMS] = "layer_norm",
        activation_type: Annotated[str, ACTIVATIONS] = "swish",
        mixer_conf: MixerConf = MixerConf(direction="outer"),
        dropout_rate: float = 0.1,
        **stack: object,
    ) -> None:
        check_flags(macaron_style=macaron_style, use_cnn_module=use_cnn_module)
        check_counts(num_blocks=num_blocks)
        check_sizes(type(self).__name__, cnn_module_kernel=cnn_module_kernel)
        blocks = (
            EncoderBlock(
                output_size,
                mixer_conf.make(output_size),
                hidden=linear_units,
                macaron=macaron_style,
                kernel_size=cnn_module_kernel if use_cnn_module else 0,
                conv_norm=cnn_module_norm,
                norm=norm,
                activation=activation_type,
                causal=mixer_conf.causal,
                dropout_rate=dropout_rate,
            )
            for _ in range(num_blocks)
        )
        super().__init__(input_size, output_size, blocks, norm, dropout_rate=dropout_rate, **stack)
