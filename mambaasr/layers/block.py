"""Blocks of an encoder: a mixer with the feed-forward and convolution modules around it."""

import torch
from torch import nn

from mambaasr.checks import check_choice, check_counts
from mambaasr.layers.activation import ACTIVATIONS, make_activation
from mambaasr.layers.conv_module import NORMS, ConvolutionModule
from mambaasr.layers.dropout import Dropout
from mambaasr.layers.linear import Linear
from mambaasr.layers.masking import zero_padding
from mambaasr.layers.norm import make_norm


class FeedForward(nn.Sequential):
    """Linear, activation, dropout, linear."""

    def __init__(self, width, hidden, dropout_rate, activation="swish"):
        super().__init__(
            Linear(width, hidden),
            make_activation(activation),
            Dropout(dropout_rate),
            Linear(hidden, width),
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
        norm: "layer_norm" or "rms_norm", of every norm but those inside the modules.
        activation: in the feed-forward and the convolution modules, "swish", "gelu" or "relu".

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
        norm="layer_norm",
        activation="swish",
    ):
        super().__init__()
        check_counts(linear_units=hidden)
        # Also where no part asks for them.
        check_choice("activation_type", activation, ACTIVATIONS)
        check_choice("cnn_module_norm", conv_norm, NORMS)
        if macaron and hidden == 0:
            raise ValueError("macaron_style needs linear_units > 0")
        self.scale = 0.5 if macaron else 1.0
        self.dropout = Dropout(dropout_rate)
        if macaron:
            self.norm_macaron = make_norm(norm, width)
            self.feed_forward_macaron = FeedForward(width, hidden, dropout_rate, activation)
        self.norm_mixer = make_norm(norm, width)
        self.mixer = mixer
        if kernel_size > 0:
            self.norm_conv = make_norm(norm, width)
            self.conv_module = ConvolutionModule(width, kernel_size, conv_norm, causal, activation)
            self.norm_final = make_norm(norm, width)
        if hidden > 0:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
        self.has = dict(macaron=macaron, conv=kernel_size > 0, ff=hidden > 0)

    @property
    def causal(self):
        """Whether no part looks ahead."""
        return self.mixer.causal and (not self.has["conv"] or self.conv_module.causal)

    def forward(self, x, lengths, scale=1.0):
        """(batch, time, width), lengths (batch) -> the same, zero beyond the lengths.

        ``scale`` multiplies every residual branch (stochastic depth).
        """
        half = self.scale * scale
        if self.has["macaron"]:
            x = self._add(x, self.feed_forward_macaron(self.norm_macaron(x)), half)
        x = self._add(x, self.mixer(self.norm_mixer(x), lengths), scale)
        if self.has["conv"]:
            x = self._add(x, self.conv_module(self.norm_conv(x), lengths), scale)
        if self.has["ff"]:
            x = self._add(x, self.feed_forward(self.norm_ff(x)), half)
        return zero_padding(self.norm_final(x) if self.has["conv"] else x, lengths)

    def _add(self, x, branch, scale):
        return torch.add(x, self.dropout(branch), alpha=scale)

    def initial_state(self, batch, device=None, dtype=torch.float32):
        """The state before the first frame: of the mixer, and of the convolution module or None."""
        own = (batch, device, dtype)
        conv = self.conv_module.initial_state(*own) if self.has["conv"] else None
        return self.mixer.initial_state(*own), conv

    def forward_chunk(self, x, state):
        """The next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, width).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, width) and the next state. Gradients flow through both.
        """
        mixer, conv = state
        if self.has["macaron"]:
            x = self._add(x, self.feed_forward_macaron(self.norm_macaron(x)), self.scale)
        y, mixer = self.mixer.forward_chunk(self.norm_mixer(x), mixer)
        x = self._add(x, y, 1.0)
        if self.has["conv"]:
            y, conv = self.conv_module.forward_chunk(self.norm_conv(x), conv)
            x = self._add(x, y, 1.0)
        if self.has["ff"]:
            x = self._add(x, self.feed_forward(self.norm_ff(x)), self.scale)
        return self.norm_final(x) if self.has["conv"] else x, (mixer, conv)
