"""The convolution module of Conformer, blind to padding."""

import torch
import torch.nn.functional as F
from torch import nn

from mambaasr.layers.linear import Linear
from mambaasr.layers.masking import valid_mask, zero_padding
from mambaasr.ops import causal_conv1d_fn


class MaskedBatchNorm(nn.BatchNorm1d):
    """BatchNorm whose statistics count valid frames only."""

    def forward(self, x, lengths):
        """(batch, time, channel) -> the same, zero beyond the lengths (batch)."""
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

    def espnet_initialization_fn(self):
        """ESPnet's initialisers leave the statistics of a BatchNorm alone, so start afresh."""
        self.reset_parameters()


class MaskedLayerNorm(nn.LayerNorm):
    """LayerNorm with the signature of :class:`MaskedBatchNorm`; frames never meet in it."""

    def forward(self, x, lengths):
        """(batch, time, channel) -> the same."""
        return super().forward(x)


NORMS = {"layer_norm": MaskedLayerNorm, "batch_norm": MaskedBatchNorm}


class ConvolutionModule(nn.Module):
    """Pointwise + GLU, depthwise, norm, Swish, pointwise (arXiv 2005.08100, section 2.2).

    Args:
        channels: width.
        kernel_size: of the depthwise convolution, odd unless causal.
        norm: "layer_norm" (ConMamba, arXiv 2407.09732) or "batch_norm" (Conformer).
        causal: see past frames only.

    Raises:
        ValueError: the kernel is even though not causal, or the norm is unknown.
    """

    def __init__(self, channels, kernel_size, norm="layer_norm", causal=False):
        super().__init__()
        if kernel_size < 1 or (not causal and kernel_size % 2 == 0):
            raise ValueError(f"cnn_module_kernel is {kernel_size}; it must be odd and positive")
        if norm not in NORMS:
            raise ValueError(f"cnn_module_norm is {norm!r}; choose one of {', '.join(NORMS)}")
        self.pointwise_in = Linear(channels, 2 * channels)
        self.depthwise = nn.Conv1d(channels, channels, kernel_size, groups=channels)
        past = kernel_size - 1 if causal else (kernel_size - 1) // 2
        self.margins = (past, kernel_size - 1 - past)
        self.norm = NORMS[norm](channels)
        self.pointwise_out = Linear(channels, channels)

    def _convolve(self, x):
        """The depthwise convolution: (b, c, t), zero beyond the lengths -> (b, c, t)."""
        past, future = self.margins
        if x.device.type != "cpu":
            return self.depthwise(F.pad(x, (past, future)))
        # A causal convolution, `future` frames late; its gradient takes half of torch's time.
        weight, bias = self.depthwise.weight.squeeze(1), self.depthwise.bias
        # Padded on the outside, channels stay side by side in memory.
        x = F.pad(x.transpose(1, 2), (0, 0, 0, future)).transpose(1, 2) if future else x
        return causal_conv1d_fn(x, weight, bias)[:, :, future:]

    def forward(self, x, lengths):
        """(batch, time, channels), lengths (batch) -> the same, zero beyond the lengths."""
        x = zero_padding(F.glu(self.pointwise_in(x), dim=-1), lengths)
        x = self._convolve(x.transpose(1, 2)).transpose(1, 2)
        return zero_padding(self.pointwise_out(F.silu(self.norm(x, lengths))), lengths)
