"""The convolution module of Conformer, blind to padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.checks import check_choice, check_counts
from mambaasr.layers.activation import make_activation
from mambaasr.layers.cpu import Dropout, call
from mambaasr.layers.depthwise import DepthwiseConv
from mambaasr.ops.lengths import valid_mask, zero_padding


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics count valid frames only."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, time, channel) -> the same, zero beyond the lengths (batch)."""
        if lengths is None:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        mask = valid_mask(lengths, x.shape[1])
        valid = x[mask]
        if len(valid) > 1 or not self.training:
            normed = super().forward(valid)
        else:
            # One frame has no variance: it takes what is known from the batches before.
            normed = F.batch_norm(
                valid, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        # index_put keeps the dtype that autocast chose for x.
        return torch.zeros_like(x).index_put((mask,), normed.to(x.dtype))

    def espnet_initialization_fn(self) -> None:
        """ESPnet's initialisers leave the statistics of a BatchNorm alone, so start afresh."""
        self.reset_parameters()


class MaskedLayerNorm(nn.LayerNorm):
    """LayerNorm with the signature of :class:`MaskedBatchNorm`; frames never meet in it."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, time, channel) -> the same."""
        return super().forward(x)


NORMS = {"layer_norm": MaskedLayerNorm, "batch_norm": MaskedBatchNorm}


class ConvolutionModule(nn.Module):
    """Pointwise + GLU, depthwise, norm, activation, pointwise (arXiv 2005.08100, section 2.2).

    Args:
        channels: width.
        kernel_size: of the depthwise convolution, odd unless causal.
        norm: "layer_norm" (ConMamba, arXiv 2407.09732) or "batch_norm" (Conformer).
        causal: see past frames only.
        activation: "swish", "gelu" or "relu".

    Raises:
        ValueError: the kernel is even though not causal, or a name is unknown.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        norm: str = "layer_norm",
        causal: bool = False,
        activation: str = "swish",
    ) -> None:
        super().__init__()
        check_choice("cnn_module_norm", norm, NORMS)
        self.pointwise_in = nn.Linear(channels, 2 * channels)
        self.depthwise = DepthwiseConv(channels, kernel_size, causal, "cnn_module_kernel")
        self.causal = causal
        self.norm = NORMS[norm](channels)
        self.activation = make_activation(activation)
        self.pointwise_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, time, channels), lengths (batch) -> the same, zero beyond the lengths."""
        x = zero_padding(F.glu(call(self.pointwise_in, x), dim=-1), lengths)
        x = self.depthwise(x)
        return zero_padding(
            call(self.pointwise_out, self.activation(self.norm(x, lengths))), lengths
        )

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the state before the first frame, that of the depthwise convolution."""
        return self.depthwise.initial_state(batch, device, dtype)

    def forward_chunk(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Process the next piece of each sequence; pieces of any size give what the whole gives.

        Args:
            x: (batch, time, channels).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, channels) and the next state. Gradients flow through both.

        Raises:
            ValueError: the module looks ahead, or would take statistics over a piece.
        """
        if self.training and isinstance(self.norm, MaskedBatchNorm):
            raise ValueError(
                "cnn_module_norm batch_norm takes pieces in evaluation only; use layer_norm"
            )
        x, state = self.depthwise.forward_chunk(F.glu(call(self.pointwise_in, x), dim=-1), state)
        return call(self.pointwise_out, self.activation(self.norm(x))), state


class LookAhead(nn.Module):
    """A convolution that shows a causal encoder a few later frames (arXiv 2410.00070).

    The convolution is a full one and sees as many later frames as earlier ones; Swish, LayerNorm
    and dropout follow, as in the paper's published code.

    Args:
        channels: width.
        kernel_size: odd; (kernel_size - 1) / 2 later frames are seen.
        dropout_rate: after the norm.

    Raises:
        ValueError: the kernel is even or negative.
    """

    def __init__(self, channels: int, kernel_size: int, dropout_rate: float) -> None:
        super().__init__()
        check_counts(lookahead_kernel=kernel_size)
        if kernel_size % 2 == 0:
            raise ValueError(
                f"lookahead_kernel is {kernel_size}; it must be odd and positive, or 0"
            )
        self.future = kernel_size // 2
        self.conv = nn.Conv1d(channels, channels, kernel_size)
        self.norm = nn.LayerNorm(channels)
        self.dropout = Dropout(dropout_rate)

    def _convolve(self, x):
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return self.dropout(self.norm(F.silu(x)))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, time, channels), zero beyond the lengths (batch) -> the same."""
        return zero_padding(self._convolve(F.pad(x, (0, 0, self.future, self.future))), lengths)

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the frames before the first, zeros: (batch, (kernel_size - 1) / 2, channels)."""
        return torch.zeros(batch, self.future, self.conv.in_channels, device=device, dtype=dtype)

    def forward_chunk(self, x: Tensor, state: Tensor, last: bool = False) -> tuple[Tensor, Tensor]:
        """Convolve the next piece; outputs come (kernel_size - 1) / 2 frames late.

        Args:
            x: (batch, time, channels).
            state: of :meth:`initial_state` or of the previous piece; not changed.
            last: no later frames follow.

        Returns:
            (batch, time', channels), the frames whose later ones are known, and the next state.
        """
        x = torch.cat([state.to(x.dtype), x], dim=1)
        if last:
            x = F.pad(x, (0, 0, 0, self.future))
        frames = x.shape[1] - 2 * self.future
        if frames < 1:
            return x[:, :0], x
        return self._convolve(x), x[:, frames:]
