"""Blocks of an encoder: a mixer with the feed-forward and convolution modules around it."""

from torch import nn

from mambaasr.layers.conv_module import ConvolutionModule
from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear
from mambaasr.layers.masking import zero_padding


class FeedForward(nn.Sequential):
    """Linear, Swish, dropout, linear."""

    def __init__(self, width, hidden, dropout_rate):
        super().__init__(
            Linear(width, hidden), nn.SiLU(), Dropout(dropout_rate), Linear(hidden, width)
        )


class EncoderBlock(nn.Module):
    """Pre-norm residual block; with every part it is the ConMamba block (arXiv 2407.09732).

        x += 1/2 FFN(LN x)     only if macaron
        x += Mixer(LN x)
        x += Conv(LN x)        only if kernel_size > 0
        x += 1/2 FFN(LN x)     only if hidden > 0; whole instead of half unless macaron
        x  = LN(x)             only with a convolution module, as in Conformer

    Args:
        width: channels.
        mixer: module with ``forward(x, lengths)``.
        hidden: width inside the feed-forward modules; 0 leaves them out.
        macaron: a feed-forward module on either side of the mixer.
        kernel_size: of the convolution module; 0 leaves it out.
        conv_norm: see :class:`ConvolutionModule`.
        causal: whether the convolution module sees past frames only.
        dropout_rate: on every residual branch.

    Raises:
        ValueError: a size is negative, or macaron without a feed-forward module.
    """

    def __init__(
        self,
        width,
        mixer,
        hidden=0,
        macaron=False,
        kernel_size=0,
        conv_norm="layer_norm",
        causal=False,
        dropout_rate=0.1,
    ):
        super().__init__()
        if hidden < 0:
            raise ValueError(f"linear_units is {hidden}; it must not be negative")
        if macaron and hidden == 0:
            raise ValueError("macaron_style needs linear_units > 0")
        self.scale = 0.5 if macaron else 1.0
        self.dropout = Dropout(dropout_rate)
        if macaron:
            self.norm_macaron = nn.LayerNorm(width)
            self.feed_forward_macaron = FeedForward(width, hidden, dropout_rate)
        self.norm_mixer = nn.LayerNorm(width)
        self.mixer = mixer
        if kernel_size > 0:
            self.norm_conv = nn.LayerNorm(width)
            self.conv_module = ConvolutionModule(width, kernel_size, conv_norm, causal)
            self.norm_final = nn.LayerNorm(width)
        if hidden > 0:
            self.norm_ff = nn.LayerNorm(width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate)
        self.has = dict(macaron=macaron, conv=kernel_size > 0, ff=hidden > 0)

    def forward(self, x, lengths):
        """(batch, time, width), lengths (batch) -> the same, zero beyond the lengths."""
        if self.has["macaron"]:
            x = x + self.scale * self.dropout(self.feed_forward_macaron(self.norm_macaron(x)))
        x = x + self.dropout(self.mixer(self.norm_mixer(x), lengths))
        if self.has["conv"]:
            x = x + self.dropout(self.conv_module(self.norm_conv(x), lengths))
        if self.has["ff"]:
            x = x + self.scale * self.dropout(self.feed_forward(self.norm_ff(x)))
        return zero_padding(self.norm_final(x) if self.has["conv"] else x, lengths)
