"""Convolutional input layers under ESPnet's names, with exact lengths.

ESPnet slices the mask of the padded batch, so an utterance keeps up to two frames more in a
batch than alone. Here the convolutions take no padding and the lengths follow by formula.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear, linear, onednn_serves, product
from mambaasr.layers.masking import zero_padding

# name -> (kernel, stride) of each convolution over time and frequency, as ESPnet has them
CONVOLUTIONS = {
    "conv2d": ((3, 2), (3, 2)),
    "conv2d1": ((3, 1), (3, 1)),
    "conv2d2": ((3, 2), (3, 1)),
    "conv2d6": ((3, 2), (5, 3)),
    "conv2d8": ((3, 2), (3, 2), (3, 2)),
}
# Frames, of all sequences together, that go through the convolutions at once without gradients.
PIECE = 256


def make_input_layer(name, input_size, output_size, dropout_rate):
    """Make the input layer that a yaml names.

    Args:
        name: a key of :data:`CONVOLUTIONS`, "linear", or None (a projection only where the
            sizes differ).
        input_size, output_size: widths before and after.
        dropout_rate: dropout after the layer.

    Returns:
        InputLayer: the module.

    Raises:
        ValueError: the name is unknown or the input too narrow for the convolutions.
    """
    if name in CONVOLUTIONS:
        return ConvInput(CONVOLUTIONS[name], input_size, output_size, dropout_rate)
    if name == "linear":
        layers = Linear(input_size, output_size), nn.LayerNorm(output_size), Dropout(dropout_rate)
        return FrameInput(input_size, output_size, *layers)
    if name is None or name in ("none", "null"):
        project = () if input_size == output_size else (Linear(input_size, output_size),)
        return FrameInput(input_size, output_size, *project, Dropout(dropout_rate))
    raise ValueError(
        f"input_layer is {name!r}; choose one of {', '.join(CONVOLUTIONS)}, linear, none"
    )


def _outputs(size, convolutions):
    """Frames (int or tensor) after the convolutions; may be negative where there are none."""
    for kernel, stride in convolutions:
        size = (size - kernel) // stride + 1
    return size


class _Convolution(torch.autograd.Function):
    """Convolution of channels that lie side by side, with the gradients that are fast for it.

    oneDNN takes four times as long for the gradient of such a weight as for the convolution, so
    that this one is a product for each of the kernel's taps.
    """

    @staticmethod
    def forward(ctx, x, weight, bias, stride):
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx, _, _ = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, ctx.stride, (0, 0), (1, 1), False, (0, 0), 1),
                (True, False, False),
            )
        rows = grad.permute(0, 2, 3, 1).flatten(0, 2)  # (b t' f', c)
        if ctx.needs_input_grad[1]:
            down, across = ctx.stride
            height, width = (
                (n - 1) * s + 1 for n, s in zip(grad.shape[2:], ctx.stride, strict=True)
            )
            dweight, turned = torch.empty_like(weight), rows.t().contiguous()
            for i in range(weight.shape[2]):
                for j in range(weight.shape[3]):
                    seen = x[:, :, i : i + height : down, j : j + width : across]
                    seen = seen.permute(0, 2, 3, 1).flatten(0, 2)
                    dweight[:, :, i, j] = product(turned, seen.t())
        if ctx.needs_input_grad[2]:
            dbias = rows.sum(0)
        return dx, dweight, dbias, None


class InputLayer(nn.Module):
    """Layers that make each frame of ``minimum`` feature frames, ``stride`` after the last.

    A subclass sets both and has ``_frame_maker()``, which returns a function of a window (batch, at
    least ``minimum`` frames, input_size) -> (batch, time', output_size). Time is never padded.
    """

    minimum = stride = 1
    # Without gradients long audio goes through in pieces, so that what is wide inside stays small.
    wide = False

    def __init__(self, input_size, output_size):
        super().__init__()
        self.input_size, self.output_size = input_size, output_size

    def output_lengths(self, lengths):
        """Frames in (batch) -> frames out (batch), by formula."""
        return _outputs(lengths, ((self.minimum, self.stride),)).clamp(min=0)

    def forward(self, x, lengths):
        """(batch, time, input_size) -> (batch, time', output_size), and the lengths (batch)."""
        lengths = self.output_lengths(lengths)
        frames = int(lengths.max())
        piece = max(frames, 1)
        whole = torch.is_grad_enabled() or torch.compiler.is_compiling()
        if self.wide and x.device.type == "cpu" and not whole:
            piece = min(piece, max(PIECE // len(x), 16))
        pieces, frame_maker = [], self._frame_maker()
        for start in range(0, max(frames, 1), piece):
            last = min(start + piece, max(frames, 1)) - 1
            window = x[:, start * self.stride : last * self.stride + self.minimum]
            pieces.append(frame_maker(window))
        x = torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]
        return zero_padding(x[:, :frames], lengths), lengths

    def initial_state(self, batch, device=None, dtype=torch.float32):
        """The feature frames that a next frame still needs: none, (batch, 0, input_size)."""
        return torch.zeros(batch, 0, self.input_size, device=device, dtype=dtype)

    def forward_chunk(self, x, state):
        """The next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, input_size).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time', output_size), the frames whose features are all there, maybe none, and
            the next state.
        """
        x = torch.cat([state.to(x.dtype), x], dim=1) if state.shape[1] else x
        frames = _outputs(x.shape[1], ((self.minimum, self.stride),))
        if frames < 1:
            return x.new_zeros(len(x), 0, self.output_size), x
        return self._frame_maker()(x), x[:, frames * self.stride :]


class ConvInput(InputLayer):
    """Two-dimensional convolutions with ReLU over time and frequency, then a projection.

    Inside, channels lie side by side in memory (batch, time, frequency, channel): oneDNN's
    convolutions take half of the time that way. What lies between two convolutions is ten times
    wider than the features.
    """

    wide = True

    def __init__(self, convolutions, input_size, output_size, dropout_rate):
        super().__init__(input_size, output_size)
        width = _outputs(input_size, convolutions)
        if width < 1:
            raise ValueError(f"input_layer: {input_size} features are too few for its convolutions")
        layers = []
        for index, (kernel, stride) in enumerate(convolutions):
            layers += [nn.Conv2d(output_size if index else 1, output_size, kernel, stride)]
            layers += [nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.out = Linear(output_size * width, output_size)
        self.dropout = Dropout(dropout_rate)
        self.minimum = self.stride = 1
        for kernel, stride in reversed(convolutions):
            self.minimum = (self.minimum - 1) * stride + kernel
            self.stride *= stride

    def _convolve(self, x):
        """(b, t, f) -> (b, t', f', c)."""
        first, *others = (layer for layer in self.conv if isinstance(layer, nn.Conv2d))
        # From a single channel each patch is one row of a product.
        (height, width), (down, across) = first.kernel_size, first.stride
        patches = x.unfold(1, height, down).unfold(2, width, across).flatten(3)
        # In place autograd would copy the whole gradient: what linear returns is a view.
        in_place = not torch.is_grad_enabled()
        x = F.relu(linear(patches, first.weight.flatten(1), first.bias), inplace=in_place)
        x = x.permute(0, 3, 1, 2)
        for conv in others:
            weight = conv.weight.contiguous(memory_format=torch.channels_last)
            if onednn_serves(x, weight):
                x = _Convolution.apply(x, weight, conv.bias, conv.stride)
            else:
                x = F.conv2d(x, weight, conv.bias, conv.stride)
            x = F.relu(x, inplace=True)
        return x.permute(0, 2, 3, 1)

    def _out_weight(self):
        """The projection's weight in the order (frequency, channel); it counts channels first."""
        channels = self.conv[0].out_channels
        return self.out.weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)

    def _frame_maker(self):
        weight, bias = self._out_weight(), self.out.bias
        return lambda x: self.dropout(linear(self._convolve(x).flatten(2), weight, bias))


class FrameInput(InputLayer):
    """Layers that work on each frame by itself."""

    def __init__(self, input_size, output_size, *layers):
        super().__init__(input_size, output_size)
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def _frame_maker(self):
        return nn.Sequential(*self.children())
