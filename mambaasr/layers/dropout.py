"""Dropout whose random numbers cost little on the CPU."""

import torch
from torch import nn

from mambaasr.checks import check_rates

LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`; on the CPU one random number of 64 bits serves four elements.

    There the rate is a multiple of 2^-16, the nearest one to ``p`` (off by 8e-6 at most), and what
    is kept is divided by the share that is kept indeed, so that the mean stays exact. Torch's own
    form takes more than twice as long.

    Raises:
        ValueError: ``p`` does not lie in [0, 1].
    """

    def __init__(self, p=0.5):
        if p != 1:  # which drops all, as in torch
            check_rates("Dropout", dropout_rate=p)
        super().__init__(p)

    def forward(self, x):
        """(...) -> the same shape."""
        dropped = round(self.p * LEVELS)
        if (
            not self.training
            or x.device.type != "cpu"
            or not 0 < dropped < LEVELS
            or torch.compiler.is_compiling()
        ):
            return super().forward(x)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = bits.view(torch.int16)[: x.numel()] >= dropped - LEVELS // 2
        return _Drop.apply(x, keep.view(x.shape), LEVELS / (LEVELS - dropped))


class _Drop(torch.autograd.Function):
    """x where ``keep``, times ``scale``; the mask alone is kept for the gradient."""

    @staticmethod
    def forward(ctx, x, keep, scale):
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.ops.aten.native_dropout_backward(x, keep, scale)

    @staticmethod
    def backward(ctx, grad):
        (keep,) = ctx.saved_tensors
        return _Drop.apply(grad, keep, ctx.scale), None, None
