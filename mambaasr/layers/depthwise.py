"""A convolution of each channel over time."""

import torch
from torch import Tensor, nn

from mambaasr.checks import check_counts
from mambaasr.layers.cpu import depthwise_conv


class DepthwiseConv(nn.Conv1d):
    """Each channel's own convolution; as many frames come out as go in.

    Args:
        channels: width.
        kernel_size: odd unless causal.
        causal: see past frames only, instead of as many later frames as earlier ones.
        name: of the kernel's option, for the error message.

    Raises:
        ValueError: the kernel is not positive, or even though not causal.
    """

    def __init__(
        self, channels: int, kernel_size: int, causal: bool = False, name: str = "kernel_size"
    ) -> None:
        check_counts(**{name: kernel_size})
        if kernel_size < 1 or (not causal and kernel_size % 2 == 0):
            odd = "" if causal else "odd and "
            raise ValueError(f"{name} is {kernel_size}; it must be {odd}positive")
        super().__init__(channels, channels, kernel_size, groups=channels)
        self.causal = causal
        self.future = 0 if causal else kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, channels), zero at padding -> the same shape; padding is not zeroed."""
        past = self.kernel_size[0] - 1 - self.future
        return depthwise_conv(x, self.weight, self.bias, past, self.future)

    def initial_state(
        self,
        batch: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return the frames before the first one, zeros: (batch, kernel_size - 1, channels)."""
        past = self.kernel_size[0] - 1
        return torch.zeros(batch, past, self.in_channels, device=device, dtype=dtype)

    def forward_chunk(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve the next piece of each sequence, for a causal convolution.

        Args:
            x: (batch, time, channels).
            state: of :meth:`initial_state` or of the previous piece; not changed.

        Returns:
            (batch, time, channels) and the next state. Gradients flow through both.

        Raises:
            ValueError: the convolution looks ahead.
        """
        if not self.causal:
            raise ValueError("a convolution that looks ahead cannot run in pieces")
        x = torch.cat([state.to(x.dtype), x], dim=1)
        y = super().forward(x.transpose(1, 2)).transpose(1, 2)
        return y, x[:, x.shape[1] - state.shape[1] :]
