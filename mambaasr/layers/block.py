"""Blocks of an encoder: a mixer with the feed-forward and convolution modules around it."""

import torch
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_counts
from mambaasr.layers.activation import ACTIVATIONS, make_activation
from mambaasr.layers.adapter import AdapterPlaces
from mambaasr.layers.conv_module import NORMS, ConvolutionModule
from mambaasr.layers.cpu import Dropout, call
from mambaasr.layers.mixer import Mixer, State
from mambaasr.layers.norm import make_norm
from mambaasr.ops.lengths import zero_padding


class FeedForward(nn.Sequential):
    """Linear, activation, dropout, linear."""

    def __init__(
        self, width: int, hidden: int, dropout_rate: float, activation: str = "swish"
    ) -> None:
        super().__init__(
            nn.Linear(width, hidden),
            make_activation(activation),
            Dropout(dropout_rate),
            nn.Linear(hidden, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same shape."""
        for layer in self:
            x = call(layer, x)
        return x


class EncoderBlock(AdapterPlaces):
    """Pre-norm residual block; with every part it is the ConMamba block (arXiv 2407.09732).

        x += 1/2 FFN(LN x)     only if macaron
        x += Mixer(LN x)
        x += Conv(LN x)        only if kernel_size > 0
        x += 1/2 FFN(LN x)     only if hidden > 0; whole instead of half unless macaron
        x  = LN(x)             only with a convolution module, as in Conformer

    Behind each branch there is a place for an adapter (:mod:`mambaasr.layers.adapter`):
    ``feed_forward_macaron``, ``mixer``, ``conv_module``, ``feed_forward``.

    Args:
        width: channels.
        mixer: any :class:`mambaasr.layers.mixer.Mixer`.
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
        width: int,
        mixer: Mixer,
        hidden: int = 0,
        macaron: bool = False,
        kernel_size: int = 0,
        conv_norm: str = "layer_norm",
        causal: bool = False,
        dropout_rate: float = 0.1,
        norm: str = "layer_norm",
        activation: str = "swish",
    ) -> None:
        super().__init__()
        check_counts(linear_units=hidden)
        # Also where no part asks for them.
        check_choice("activation_type", activation, ACTIVATIONS)
        check_choice("cnn_module_norm", conv_norm, NORMS)
        if macaron and hidden == 0:
            raise ValueError("macaron_style needs linear_units > 0")
        self.scale = 0.5 if macaron else 1.0
        self.dropout = Dropout(dropout_rate)
        self.has_macaron, self.has_conv, self.has_ff = macaron, kernel_size > 0, hidden > 0
        if self.has_macaron:
            self.norm_macaron = make_norm(norm, width)
            self.feed_forward_macaron = FeedForward(width, hidden, dropout_rate, activation)
            self.adapter_feed_forward_macaron = nn.Identity()
        self.norm_mixer = make_norm(norm, width)
        self.mixer = mixer
        self.adapter_mixer = nn.Identity()
        if self.has_conv:
            self.norm_conv = make_norm(norm, width)
            self.conv_module = ConvolutionModule(width, kernel_size, conv_norm, causal, activation)
            self.adapter_conv_module = nn.Identity()
            self.norm_final = make_norm(norm, width)
        if self.has_ff:
            self.norm_ff = make_norm(norm, width)
            self.feed_forward = FeedForward(width, hidden, dropout_rate, activation)
            self.adapter_feed_forward = nn.Identity()

    @property
    def causal(self) -> bool:
        """Whether no part looks ahead."""
        return self.mixer.causal and (not self.has_conv or self.conv_module.causal)

    def _add(self, x: Tensor, branch: Tensor, scale: float) -> Tensor:
        return torch.add(x, self.dropout(branch), alpha=scale)

    def _feed_macaron(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if not self.has_macaron:
            return x
        y = self.adapter_feed_forward_macaron(self.feed_forward_macaron(self.norm_macaron(x)))
        return self._add(x, y, self.scale * scale)

    def _feed(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if not self.has_ff:
            return x
        y = self.adapter_feed_forward(self.feed_forward(self.norm_ff(x)))
        return self._add(x, y, self.scale * scale)

    def forward(self, x: Tensor, lengths: Tensor, scale: float = 1.0) -> Tensor:
        """(batch, time, width), lengths (batch) -> the same, zero beyond the lengths.

        ``scale`` multiplies every residual branch (stochastic depth).
        """
        x = self._feed_macaron(x, scale)
        x = self._add(x, self.adapter_mixer(self.mixer(self.norm_mixer(x), lengths)), scale)
        if self.has_conv:
            y = self.conv_module(self.norm_conv(x), lengths)
            x = self._add(x, self.adapter_conv_module(y), scale)
        x = self._feed(x, scale)
        return zero_padding(self.norm_final(x) if self.has_conv else x, lengths)

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[State, Tensor | None]:
        """Return the state before the first frame: the mixer's, the convolution's or None."""
        own = (batch, device, dtype)
        conv = self.conv_module.initial_state(*own) if self.has_conv else None
        return self.mixer.initial_state(*own), conv

    def forward_chunk(
        self, x: Tensor, state: tuple[State, Tensor | None]
    ) -> tuple[Tensor, tuple[State, Tensor | None]]:
        """Process the next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, width).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, width) and the next state. Gradients flow through both.
        """
        mixer, conv = state
        x = self._feed_macaron(x)
        y, mixer = self.mixer.forward_chunk(self.norm_mixer(x), mixer)
        x = self._add(x, self.adapter_mixer(y), 1.0)
        if self.has_conv:
            assert conv is not None
            y, conv = self.conv_module.forward_chunk(self.norm_conv(x), conv)
            x = self._add(x, self.adapter_conv_module(y), 1.0)
        x = self._feed(x)
        return self.norm_final(x) if self.has_conv else x, (mixer, conv)
