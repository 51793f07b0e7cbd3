"""A stack of Mamba blocks as an ESPnet encoder."""

from torch import nn

from mambaasr.espnet_compat import AbsEncoder, TooShortUttError
from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.masking import zero_padding
from mambaasr.layers.mixer import make_mixer
from mambaasr.layers.subsampling import make_input_layer


class MambaEncoder(AbsEncoder):
    """Input layer, blocks around Mamba mixers, LayerNorm. No positions: a scan has an order.

    With the defaults a plain bidirectional stack ("ExtBiMamba" of arXiv 2405.12609 with
    ``direction: outer``); ``linear_units`` adds the feed-forward modules of its ablation.

    Args:
        input_size: width of the features.
        output_size: width of the encoder (d_model).
        num_blocks: number of blocks.
        linear_units: width inside the feed-forward modules; 0 leaves them out.
        macaron_style: a feed-forward module on either side of the mixer.
        use_cnn_module: put in the convolution module of Conformer.
        cnn_module_kernel: its kernel.
        cnn_module_norm: "layer_norm" or "batch_norm".
        direction: "uni" (causal, the convolution module too), "inner" or "outer".
        merge: how two directions meet: "sum", "mean" or "concat".
        d_state, d_conv, expand: of the mixer, see :class:`mambaasr.layers.mamba.Mamba`.
        input_layer: ESPnet's name: conv2d, conv2d1, conv2d2, conv2d6, conv2d8, linear, none.
        dropout_rate: on residual branches, inside feed-forward modules and after the input.
        mixer_dropout_rate: inside the mixer, after its input and output projections.
        interctc_layer_idx: blocks (from 1) whose output an intermediate CTC loss takes.
        interctc_use_conditioning: add the intermediate CTC posteriors back to the frames
            (arXiv 2104.02724); ESPnet sets ``conditioning_layer``.

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
        direction="outer",
        merge="sum",
        d_state=16,
        d_conv=4,
        expand=2,
        input_layer="conv2d",
        dropout_rate=0.1,
        mixer_dropout_rate=0.0,
        interctc_layer_idx=(),
        interctc_use_conditioning=False,
    ):
        super().__init__()
        if num_blocks < 1:
            raise ValueError(f"num_blocks is {num_blocks}; it must be positive")
        if any(not 0 < index < num_blocks for index in interctc_layer_idx):
            raise ValueError(
                f"interctc_layer_idx is {list(interctc_layer_idx)}; "
                f"each must lie between 1 and {num_blocks - 1}"
            )
        if use_cnn_module and cnn_module_kernel < 1:
            raise ValueError(f"cnn_module_kernel is {cnn_module_kernel}; it must be positive")
        self._output_size = output_size
        self.embed = make_input_layer(input_layer, input_size, output_size, dropout_rate)
        self.blocks = nn.ModuleList(
            EncoderBlock(
                output_size,
                make_mixer(
                    "mamba1",
                    direction,
                    output_size,
                    merge,
                    d_state=d_state,
                    d_conv=d_conv,
                    expand=expand,
                    dropout_rate=mixer_dropout_rate,
                ),
                hidden=linear_units,
                macaron=macaron_style,
                kernel_size=cnn_module_kernel if use_cnn_module else 0,
                conv_norm=cnn_module_norm,
                causal=direction == "uni",
                dropout_rate=dropout_rate,
            )
            for _ in range(num_blocks)
        )
        self.after_norm = nn.LayerNorm(output_size)
        self.interctc_layer_idx = list(interctc_layer_idx)
        self.interctc_use_conditioning = interctc_use_conditioning
        self.conditioning_layer = None

    def output_size(self):
        """Width of the output."""
        return self._output_size

    def output_lengths(self, lengths):
        """Feature frames (batch) -> encoder frames (batch), by formula."""
        return self.embed.output_lengths(lengths)

    def forward(self, xs_pad, ilens, prev_states=None, ctc=None):
        """Encode a batch.

        Args:
            xs_pad: features (batch, time, input_size).
            ilens: (batch) valid frames.
            prev_states: of ESPnet's signature; unused.
            ctc: ESPnet's CTC module, for conditioning on intermediate posteriors.

        Returns:
            (batch, time', output_size), zero beyond the lengths, or, with intermediate CTC, the
            tuple of it and a list of (block, output); the lengths (batch), zero for an
            utterance that is too short beside longer ones; None.

        Raises:
            TooShortUttError: the longest utterance has too few frames for the input layer.
        """
        longest = int(ilens.max())
        if longest < self.embed.minimum:
            raise TooShortUttError(
                f"has {longest} frames; the input layer needs {self.embed.minimum}",
                longest,
                self.embed.minimum,
            )
        ilens = ilens.to(xs_pad.device)
        x, lengths = self.embed(zero_padding(xs_pad, ilens), ilens)
        intermediate = []
        for index, block in enumerate(self.blocks, start=1):
            x = block(x, lengths)
            if index in self.interctc_layer_idx:
                normed = self.after_norm(x)
                intermediate.append((index, zero_padding(normed, lengths)))
                if self.interctc_use_conditioning:
                    x = x + self.conditioning_layer(ctc.softmax(normed))
        x = zero_padding(self.after_norm(x), lengths)
        return ((x, intermediate) if intermediate else x), lengths, None
