"""Convolutional input layers, ESPnet's and those of papers, with exact lengths.

ESPnet slices the mask of the padded batch, so an utterance keeps up to two frames more in a
batch than alone; SpeechBrain pads time, so that the last frames see the batch's padding. Here the
convolutions take no padding in time and the lengths follow by formula.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.layers.cpu import Dropout, call, conv2d, is_plain, linear, tuned
from mambaasr.ops.lengths import zero_padding


class Stage(NamedTuple):
    """One convolution of an input layer.

    ``channels`` is None for the encoder's width. A stage with ``norm`` is SpeechBrain's: frequency
    padded by reflection, LayerNorm over frequency and channel, leaky ReLU, dropout, and with
    ``residual`` a shortcut. Others are ESPnet's: ReLU alone.
    """

    kernel: int
    stride: int
    channels: int | None = None
    norm: bool = False
    residual: bool = False

    @property
    def margin(self) -> int:
        """Frequencies of padding on either side."""
        return self.kernel // 2 if self.norm else 0

    def frequencies(self, width: int) -> int:
        """Frequencies in -> out, below 1 where there are too few."""
        if width <= self.margin:  # what is reflected has to be there
            return 0
        return (width + 2 * self.margin - self.kernel) // self.stride + 1


# name -> convolutions over time and frequency
CONVOLUTIONS = {
    # ESPnet's
    "conv2d": (Stage(3, 2), Stage(3, 2)),
    "conv2d1": (Stage(3, 1), Stage(3, 1)),
    "conv2d2": (Stage(3, 2), Stage(3, 1)),
    "conv2d6": (Stage(3, 2), Stage(5, 3)),
    "conv2d8": (Stage(3, 2), Stage(3, 2), Stage(3, 2)),
    # Speech Slytherin (arXiv 2407.09732)
    "cnn64_32": (Stage(3, 2, 64, norm=True), Stage(3, 2, 32, norm=True)),
    # Speech-Mamba (arXiv 2409.18654)
    "cnn64_64_64": (
        Stage(5, 2, 64, norm=True),
        Stage(5, 2, 64, norm=True),
        Stage(1, 1, 64, norm=True, residual=True),
    ),
}
# name -> convolutions over time, of frames as a whole; the stem of Whisper (arXiv 2212.04356)
CONVOLUTIONS_1D = {
    "conv1d2": (Stage(3, 1), Stage(3, 2)),
    "conv1d4": (Stage(3, 2), Stage(3, 2)),
}
# Frames, of all sequences together, that go through the convolutions at once without gradients.
PIECE = 256


def make_input_layer(
    name: str | None, input_size: int, output_size: int, dropout_rate: float
) -> "InputLayer":
    """Make the input layer that a yaml names.

    Args:
        name: a key of :data:`CONVOLUTIONS` or :data:`CONVOLUTIONS_1D`, "linear", or None (a
            projection only where the sizes differ).
        input_size, output_size: widths before and after.
        dropout_rate: dropout after the layer, and inside those of SpeechBrain's kind.

    Returns:
        InputLayer: the module.

    Raises:
        ValueError: the name is unknown or the input too narrow for the convolutions.
    """
    if isinstance(name, str) and name in CONVOLUTIONS:
        return ConvInput(CONVOLUTIONS[name], input_size, output_size, dropout_rate)
    if isinstance(name, str) and name in CONVOLUTIONS_1D:
        return FrameConvInput(CONVOLUTIONS_1D[name], input_size, output_size, dropout_rate)
    if name == "linear":
        layers = (
            nn.Linear(input_size, output_size),
            nn.LayerNorm(output_size),
            Dropout(dropout_rate),
        )
        return FrameInput(input_size, output_size, *layers)
    if name is None or name in ("none", "null"):
        project = () if input_size == output_size else (nn.Linear(input_size, output_size),)
        return FrameInput(input_size, output_size, *project, Dropout(dropout_rate))
    known = ", ".join((*CONVOLUTIONS, *CONVOLUTIONS_1D))
    raise ValueError(f"input_layer is {name!r}; choose one of {known}, linear, none")


class InputLayer(nn.Module):
    """Layers that make each frame of ``minimum`` feature frames, ``stride`` after the last.

    A subclass has ``_frame_maker(frames)``: a function of a window (batch, at least ``minimum``
    frames, input_size) -> (batch, time', output_size), to be used for so many frames in all.

    Args:
        input_size, output_size: widths before and after.
        stages: the kernel and stride of each convolution over time, which is never padded.
    """

    # Without gradients long audio goes through in pieces, so that what is wide inside stays small.
    wide = False

    def __init__(self, input_size: int, output_size: int, stages: Sequence[Stage] = ()) -> None:
        super().__init__()
        self.input_size, self.output_size = input_size, output_size
        self.minimum = self.stride = 1
        for stage in reversed(stages):
            self.minimum = (self.minimum - 1) * stage.stride + stage.kernel
            self.stride *= stage.stride

    def _frame_maker(self, frames: int) -> Callable[[Tensor], Tensor]:
        raise NotImplementedError

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Frames in (batch) -> frames out (batch), by formula."""
        return ((lengths - self.minimum) // self.stride + 1).clamp(min=0)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, time, input_size) -> (batch, time', output_size), and the lengths (batch)."""
        lengths = self.output_lengths(lengths)
        frames = int(lengths.max())
        piece = max(frames, 1)
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if self.wide and tuned(x) and not whole:
            piece = min(piece, max(PIECE // len(x), 16))
        pieces, frame_maker = [], self._frame_maker(len(x) * frames)
        for start in range(0, max(frames, 1), piece):
            last = min(start + piece, max(frames, 1)) - 1
            window = x[:, start * self.stride : last * self.stride + self.minimum]
            pieces.append(frame_maker(window))
        x = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
        return zero_padding(x[:, :frames], lengths), lengths

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the feature frames that a next frame still needs: none, (batch, 0, input_size)."""
        return torch.zeros(batch, 0, self.input_size, device=device, dtype=dtype)

    def forward_chunk(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Process the next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, input_size).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time', output_size), the frames whose features are all there, maybe none, and
            the next state.
        """
        x = torch.cat([state.to(x.dtype), x], dim=1) if state.shape[1] else x
        frames = (x.shape[1] - self.minimum) // self.stride + 1
        if frames < 1:
            return x.new_zeros(len(x), 0, self.output_size), x
        return self._frame_maker(len(x) * frames)(x), x[:, frames * self.stride :]


class Convolution(nn.Conv2d):
    """A :class:`Stage`: (batch, channel, time, frequency), channels side by side, to the same.

    Args:
        inputs: channels of the input.
        width: frequencies of the input.
        stage: what to do.
        channels: of the output.
        dropout_rate: of a stage that has dropout.
    """

    def __init__(
        self, inputs: int, width: int, stage: Stage, channels: int, dropout_rate: float
    ) -> None:
        super().__init__(inputs, channels, stage.kernel, stage.stride)
        self.margin = stage.margin
        self.norm: nn.Module | None = None
        self.dropout: nn.Module = nn.Identity()
        self.shortcut: Convolution | None = None
        if stage.norm:
            self.norm = nn.LayerNorm([stage.frequencies(width), channels])
            self.dropout = Dropout(dropout_rate)
        if stage.residual:
            plain = Stage(1, stage.stride, norm=True)
            self.shortcut = Convolution(inputs, width, plain, channels, dropout_rate)

    def _reflect(self, x):
        # F.pad's gradient is not deterministic on a GPU.
        x, n = x.permute(0, 2, 3, 1), self.margin  # (b, t, f, c)
        ends = x[:, :, 1 : n + 1].flip(2), x[:, :, -1 - n : -1].flip(2)
        return torch.cat([ends[0], x, ends[1]], dim=2).permute(0, 3, 1, 2)

    def _convolve(self, x):
        x = self._reflect(x) if self.margin else x
        (height, width), (down, across) = self.kernel_size, self.stride
        if self.in_channels == 1:
            # From a single channel each patch is one row of a product.
            x = x.squeeze(1).unfold(1, height, down).unfold(2, width, across).flatten(3)
            return linear(x, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if self.kernel_size == (1, 1):
            x = x[:, :, ::down, ::across].permute(0, 2, 3, 1)
            return linear(x, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        return conv2d(x, self.weight, self.bias, self.stride)

    def normed(self, x: Tensor) -> Tensor:
        """Convolve and normalise, without what follows; shapes as in :meth:`forward`."""
        x = self._convolve(x)
        return x if self.norm is None else self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, frequency) -> (batch, channel', time', frequency')."""
        if self.norm is None:
            # In place autograd would copy the whole gradient where what linear returns is a view.
            in_place = self.in_channels > 1 or not torch.is_grad_enabled()
            return F.relu(self._convolve(x), inplace=in_place)
        y = self.dropout(F.leaky_relu(self.normed(x)))
        return y if self.shortcut is None else self.dropout(y + self.shortcut.normed(x))


class ConvInput(InputLayer):
    """Convolutions over time and frequency, then a projection.

    Inside, channels lie side by side in memory (batch, time, frequency, channel): oneDNN's
    convolutions take half of the time that way. What lies between two convolutions is ten times
    wider than the features.

    Args:
        stages: the convolutions, see :class:`Stage`.
        input_size, output_size, dropout_rate: see :func:`make_input_layer`.

    Raises:
        ValueError: the input is too narrow for the convolutions.
    """

    wide = True

    def __init__(
        self, stages: Sequence[Stage], input_size: int, output_size: int, dropout_rate: float
    ) -> None:
        super().__init__(input_size, output_size, stages)
        layers, channels, width = {}, 1, input_size
        for index, stage in enumerate(stages):
            into = stage.channels or output_size
            if stage.frequencies(width) < 1:
                raise ValueError(
                    f"input_layer: {input_size} features are too few for its convolutions"
                )
            # ESPnet's names count its activations too.
            layers[str(2 * index)] = Convolution(channels, width, stage, into, dropout_rate)
            channels, width = into, stage.frequencies(width)
        self.conv = nn.Sequential(OrderedDict(layers))
        self.out = nn.Linear(channels * width, output_size)
        # ESPnet's projection counts channels first, SpeechBrain's frequencies.
        self.channels_first = not stages[-1].norm
        self.dropout = Dropout(dropout_rate)

    def _frame_maker(self, frames):
        weight, first = None, self.channels_first
        # The weight's order or the frames' is to change; of a wrapped layer only the frames'.
        if first and frames >= self.output_size and is_plain(self.out):  # fewer numbers to move
            weight = self.out.weight.unflatten(1, (self.conv[-1].out_channels, -1))
            weight, first = weight.transpose(1, 2).flatten(1), False

        def make(x):
            x = self.conv(x.unsqueeze(1))  # (b, c, t', f')
            x = (x.transpose(1, 2) if first else x.permute(0, 2, 3, 1)).flatten(2)
            y = call(self.out, x) if weight is None else linear(x, weight, self.out.bias)
            return self.dropout(y)

        return make


class FrameConvolution(nn.Conv1d):
    """A convolution over time whose windows are the rows of one product."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time) -> (batch, channel', time'); channels side by side, best so."""
        windows = x.unfold(2, self.kernel_size[0], self.stride[0]).transpose(1, 2).flatten(2)
        return linear(windows, self.weight.flatten(1), self.bias).transpose(1, 2)


class FrameConvInput(InputLayer):
    """Convolutions over time with GELU, from frame to frame: the stem of Whisper, unpadded.

    Args:
        stages: the convolutions; only kernel and stride count.
        input_size, output_size, dropout_rate: see :func:`make_input_layer`.
    """

    def __init__(
        self, stages: Sequence[Stage], input_size: int, output_size: int, dropout_rate: float
    ) -> None:
        super().__init__(input_size, output_size, stages)
        widths = (input_size, *[output_size] * len(stages))
        self.conv = nn.ModuleList(
            FrameConvolution(width, output_size, stage.kernel, stage.stride)
            for width, stage in zip(widths, stages, strict=False)
        )
        self.dropout = Dropout(dropout_rate)

    def _frame_maker(self, frames):
        return self._frames

    def _frames(self, x):
        for conv in self.conv:
            x = F.gelu(conv(x.transpose(1, 2)).transpose(1, 2))
        return self.dropout(x)


class FrameInput(InputLayer):
    """Layers that work on each frame by itself."""

    def __init__(self, input_size: int, output_size: int, *layers: nn.Module) -> None:
        super().__init__(input_size, output_size)
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def _frame_maker(self, frames):
        return self._layers

    def _layers(self, x):
        for layer in self.children():
            x = call(layer, x)
        return x
