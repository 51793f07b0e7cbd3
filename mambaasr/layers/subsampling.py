"""Convolutional input layers under ESPnet's names, with exact lengths.

ESPnet slices the mask of the padded batch, so an utterance keeps up to two frames more in a
batch than alone. Here the convolutions take no padding and the lengths follow by formula.
"""

from torch import nn

from mambaasr.layers.linear import Linear
from mambaasr.layers.masking import zero_padding

# name -> (kernel, stride) of each convolution over time and frequency, as ESPnet has them
CONVOLUTIONS = {
    "conv2d": ((3, 2), (3, 2)),
    "conv2d1": ((3, 1), (3, 1)),
    "conv2d2": ((3, 2), (3, 1)),
    "conv2d6": ((3, 2), (5, 3)),
    "conv2d8": ((3, 2), (3, 2), (3, 2)),
}


def make_input_layer(name, input_size, output_size, dropout_rate):
    """Make the input layer that a yaml names.

    Args:
        name: a key of :data:`CONVOLUTIONS`, "linear", or None (a projection only where the
            sizes differ).
        input_size, output_size: widths before and after.
        dropout_rate: dropout after the layer.

    Returns:
        a module with ``forward(x, lengths) -> (y, lengths)``, ``output_lengths(lengths)`` and
        ``minimum``, the fewest frames that give one.

    Raises:
        ValueError: the name is unknown or the input too narrow for the convolutions.
    """
    if name in CONVOLUTIONS:
        return ConvInput(CONVOLUTIONS[name], input_size, output_size, dropout_rate)
    if name == "linear":
        return FrameInput(
            Linear(input_size, output_size), nn.LayerNorm(output_size), nn.Dropout(dropout_rate)
        )
    if name is None or name in ("none", "null"):
        project = () if input_size == output_size else (Linear(input_size, output_size),)
        return FrameInput(*project, nn.Dropout(dropout_rate))
    raise ValueError(
        f"input_layer is {name!r}; choose one of {', '.join(CONVOLUTIONS)}, linear, none"
    )


def _outputs(size, convolutions):
    """Frames (int or tensor) after the convolutions; may be negative where there are none."""
    for kernel, stride in convolutions:
        size = (size - kernel) // stride + 1
    return size


class ConvInput(nn.Module):
    """Two-dimensional convolutions with ReLU over time and frequency, then a projection."""

    def __init__(self, convolutions, input_size, output_size, dropout_rate):
        super().__init__()
        self.convolutions = convolutions
        width = _outputs(input_size, convolutions)
        if width < 1:
            raise ValueError(f"input_layer: {input_size} features are too few for its convolutions")
        layers = []
        for index, (kernel, stride) in enumerate(convolutions):
            layers += [nn.Conv2d(output_size if index else 1, output_size, kernel, stride)]
            layers += [nn.ReLU()]
        self.conv = nn.Sequential(*layers)
        self.out = Linear(output_size * width, output_size)
        self.dropout = nn.Dropout(dropout_rate)
        self.minimum = 1
        for kernel, stride in reversed(convolutions):
            self.minimum = (self.minimum - 1) * stride + kernel

    def output_lengths(self, lengths):
        """Frames in (batch) -> frames out (batch), by formula."""
        return _outputs(lengths, self.convolutions).clamp(min=0)

    def forward(self, x, lengths):
        """(batch, time, input_size) -> (batch, time', output_size), and the lengths (batch)."""
        x = self.conv(x.unsqueeze(1))  # (b, c, t', f')
        x = self.out(x.transpose(1, 2).flatten(2))
        lengths = self.output_lengths(lengths)
        x = self.dropout(x[:, : int(lengths.max())])
        return zero_padding(x, lengths), lengths


class FrameInput(nn.Sequential):
    """Layers that work on each frame by itself."""

    minimum = 1

    def output_lengths(self, lengths):
        """Frames stay as many as they are."""
        return lengths

    def forward(self, x, lengths):
        """(batch, time, input_size) -> (batch, time, output_size), and the lengths (batch)."""
        return zero_padding(super().forward(x), lengths), lengths
