"""The convolutional gating MLP of Branchformer, blind to padding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.checks import check_counts
from mambaasr.layers.cpu import Dropout, call
from mambaasr.layers.depthwise import DepthwiseConv
from mambaasr.ops.lengths import zero_padding


class ConvolutionalGatingMLP(nn.Module):
    """Linear, GELU, one half gated by a convolution of the other, linear (arXiv 2207.02971, 3.3).

    ESPnet's convolution sees the norm's bias at padding, so that its outputs depend on the batch;
    here padding is zero in front of the convolution.

    Args:
        width: channels.
        hidden: channels inside, even.
        kernel_size: of the depthwise convolution, odd unless causal.
        dropout_rate: on the gated half.
        causal: see past frames only.
        linear_after_conv: a linear layer after the convolution.

    Raises:
        ValueError: a size is impossible.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        kernel_size: int,
        dropout_rate: float = 0.0,
        causal: bool = False,
        linear_after_conv: bool = False,
    ) -> None:
        super().__init__()
        check_counts(cgmlp_linear_units=hidden)
        if hidden < 2 or hidden % 2:
            raise ValueError(f"cgmlp_linear_units is {hidden}; it must be even and positive")
        self.causal = causal
        self.linear_in = nn.Linear(width, hidden)
        self.norm = nn.LayerNorm(hidden // 2)
        self.conv = DepthwiseConv(hidden // 2, kernel_size, causal, "cgmlp_conv_kernel")
        self.linear_gate = (
            nn.Linear(hidden // 2, hidden // 2) if linear_after_conv else nn.Identity()
        )
        self.dropout = Dropout(dropout_rate)
        self.linear_out = nn.Linear(hidden // 2, width)
        self.espnet_initialization_fn()

    @torch.no_grad()
    def espnet_initialization_fn(self) -> None:
        """Start with an open gate: whatever comes in passes through."""
        last = self.conv if isinstance(self.linear_gate, nn.Identity) else self.linear_gate
        nn.init.normal_(last.weight, std=1e-6)
        assert last.bias is not None
        nn.init.ones_(last.bias)

    def _enter(self, x):
        x, gate = F.gelu(call(self.linear_in, x)).chunk(2, dim=-1)
        return x, self.norm(gate)

    def _leave(self, x, gate):
        return call(self.linear_out, self.dropout(x * call(self.linear_gate, gate)))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, time, width), lengths (batch) -> the same, zero beyond the lengths."""
        x, gate = self._enter(x)
        return zero_padding(self._leave(x, self.conv(zero_padding(gate, lengths))), lengths)

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the state before the first frame, that of the convolution."""
        return self.conv.initial_state(batch, device, dtype)

    def forward_chunk(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Process the next piece of each sequence; see :meth:`DepthwiseConv.forward_chunk`."""
        x, gate = self._enter(x)
        gate, state = self.conv.forward_chunk(gate, state)
        return self._leave(x, gate), state
