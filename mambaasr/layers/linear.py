"""Linear layers whose products run on oneDNN, forward and backward.

Torch hands float32 products on the CPU to MKL. MKL leaves AVX-512 unused on processors that are not
Intel's, where oneDNN, which torch carries along too, takes less than half of the time.
"""

import torch
import torch.nn.functional as F
from torch import nn


def _onednn_is_faster():
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN = _onednn_is_faster()
# Below so many multiplications the calls cost more than the products.
SMALL = 1 << 21


def product(x, weight, bias=None):
    """x (m, k) weight^T (k, n) + bias (n) on oneDNN.

    x must be contiguous, or is copied; so must weight or its transpose be: of others oneDNN
    refuses some.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """:func:`product` with gradients."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = _Product.apply(grad, weight.t(), None)
        if ctx.needs_input_grad[1]:
            # oneDNN is at its best where a product is wider than high.
            if weight.shape[0] <= weight.shape[1]:
                dweight = _Product.apply(grad.t(), x.t(), None)
            else:
                dweight = _Product.apply(x.t(), grad.t(), None).t()
        if ctx.needs_input_grad[2]:
            dbias = grad.sum(0)
        return dx, dweight, dbias


def onednn_serves(x, weight):
    """Whether products of ``x`` with ``weight`` are to run on oneDNN, by kind; sizes aside."""
    return (
        ONEDNN
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # a compiler chooses for itself
    )


def linear(x, weight, bias=None):
    """What :func:`torch.nn.functional.linear` computes, by the faster library.

    Args:
        x: (..., k).
        weight: (n, k).
        bias: (n), or None.

    Returns:
        (..., n).
    """
    if not onednn_serves(x, weight) or x.numel() * weight.shape[0] < SMALL:
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    return _Product.apply(rows, weight.contiguous(), bias).view(*x.shape[:-1], len(weight))


class Linear(nn.Linear):
    """:class:`torch.nn.Linear`, computed by :func:`linear`."""

    def forward(self, x):
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias)
