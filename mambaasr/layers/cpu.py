"""What runs faster on a CPU than torch's own: linear layers, dropout, two convolutions.

One switch for all of it, on by default: ``MAMBAASR_CPU_TUNING=0`` in the environment, or
:func:`set_cpu_tuning`, gives torch's own forms, as a GPU, a compiler and other dtypes get anyway.
Parameters are torch's in either case; values differ by rounding, and dropout draws other numbers.

- Torch hands float32 products on the CPU to MKL. MKL leaves AVX-512 unused on processors that are
  not Intel's, where oneDNN, which torch carries along too, takes less than half of the time.
- With few rows, as in short utterances and streams, a product takes as long as its weight takes to
  come from memory. Without gradients a kernel of ours reads it as it lies, and ahead of its use.
- Dropout draws one random number of 64 bits for four elements.
- oneDNN takes two to four times as long for the gradient of a convolution's weight as for itself.
- MKL takes five times as long for the weight's gradient of a layer with few inputs as for that
  gradient transposed.
- Our convolution of each channel over time takes half of the time of torch's, with its gradient.
"""

import os
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from mambaasr.checks import check_rates
from mambaasr.ops import causal_conv1d_fn
from mambaasr.ops.library import direct
from mambaasr.ops.native.call import floats, unavailable
from mambaasr.ops.native.product import product

_enabled = os.environ.get("MAMBAASR_CPU_TUNING", "1") != "0"
# Below so many multiplications the calls to oneDNN cost more than the products.
SMALL = 1 << 21
# Up to so many rows, where the weight is large, its way from memory takes longer than the product.
FEW, LEAST = 64, 1 << 14
# Up to so many inputs a layer's gradient is computed the other way round.
THIN = 16
# Rates of dropout are multiples of one over this.
LEVELS = 1 << 16


def set_cpu_tuning(enabled: bool) -> None:
    """Choose between the forms of this file and torch's own, for all layers of the process."""
    global _enabled
    _enabled = enabled


def tuned(x: Tensor) -> bool:
    """Whether ``x`` lies on a CPU for which the forms of this file are switched on."""
    return _enabled and x.device.type == "cpu"


def _onednn_is_faster() -> bool:
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


ONEDNN = _onednn_is_faster()


def _serves(x: Tensor, weight: Tensor) -> bool:
    """Whether products of ``x`` with ``weight`` may take another way than torch's, by kind."""
    return bool(
        tuned(x)
        and weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()  # a compiler chooses for itself
    )


def _few_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether our own product serves: few rows, no gradient, float32, rows that lie whole."""
    return bool(
        x.dim() > 1
        and weight.dim() == 2
        and x.shape[-1] == weight.shape[1] >= 64
        and 1 < x.numel() // x.shape[-1] <= FEW
        and weight.numel() >= LEAST
        and tuned(x)
        and x.dtype == weight.dtype == torch.float32
        and (bias is None or (bias.dtype == x.dtype and bias.shape == weight.shape[:1]))
        and x.stride(-1) == 1
        and weight.is_contiguous()
        and not torch.is_autocast_enabled("cpu")
        and direct(x, weight, bias)
        and unavailable(weight) is None
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (m, k) weight^T (k, n) + bias (n) on oneDNN.

    x must be contiguous, or is copied; so must weight or its transpose be: of others oneDNN
    refuses some.
    """
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Product(torch.autograd.Function):
    """:func:`_product` with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
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


class _Thin(torch.autograd.Function):
    """:func:`torch.nn.functional.linear`, the gradient of whose weight is computed transposed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = grad @ weight
        if ctx.needs_input_grad[1]:
            dweight = (x.flatten(0, -2).t() @ grad.flatten(0, -2)).t()
        if ctx.needs_input_grad[2]:
            dbias = grad.flatten(0, -2).sum(0)
        return dx, dweight, dbias


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute what :func:`torch.nn.functional.linear` does, by the faster library.

    Args:
        x: (..., k).
        weight: (n, k).
        bias: (n), or None.

    Returns:
        (..., n).
    """
    if _few_rows(x, weight, bias):
        rows = product(x.reshape(-1, x.shape[-1]), weight, floats(bias))
        return rows.view(*x.shape[:-1], len(weight))
    if not _serves(x, weight) or x.numel() * weight.shape[0] < SMALL:
        return F.linear(x, weight, bias)
    if not ONEDNN:
        thin = 1 < x.dim() and x.shape[-1] <= THIN and torch.is_grad_enabled()
        return _Thin.apply(x, weight, bias) if thin else F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    return _Product.apply(rows, weight.contiguous(), bias).view(*x.shape[:-1], len(weight))


def is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether a call of ``layer`` would do no more than :func:`torch.nn.functional.linear`.

    Then its weight may be read instead. A wrapped, hooked, parametrised, adapted (LoRA) or
    quantised layer is to be called.
    """
    return (
        type(layer) is nn.Linear
        and type(layer.weight) in (nn.Parameter, Tensor)
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and not _has_any_global_hook()
    )


def call(layer: nn.Module, x: Tensor) -> Tensor:
    """Return ``layer(x)``; that of a plain :class:`torch.nn.Linear` is computed by :func:`linear`.

    The layers themselves are torch's own: what replaces or wraps such layers, by their very type,
    as torch's quantisation does, finds them.
    """
    return linear(x, layer.weight, layer.bias) if is_plain(layer) else layer(x)


class _Convolution(torch.autograd.Function):
    """Convolution of channels that lie side by side; its weight's gradient by products.

    One product for each of the kernel's taps.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, bias, stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx, _, _ = torch.ops.aten.convolution_backward(
                *(grad, x, weight, None, ctx.stride, (0, 0), (1, 1), False, (0, 0), 1),
                (True, False, False),
            )
        rows = grad.permute(0, 2, 3, 1).flatten(0, 2)  # (b t' f', c)
        if ctx.needs_input_grad[1]:
            down, across = ctx.stride
            height, width = (
                (n - 1) * s + 1 for n, s in zip(grad.shape[2:], ctx.stride, strict=True)
            )
            dweight, turned = torch.empty_like(weight), rows.t().contiguous()
            for i in range(weight.shape[2]):
                for j in range(weight.shape[3]):
                    seen = x[:, :, i : i + height : down, j : j + width : across]
                    seen = seen.permute(0, 2, 3, 1).flatten(0, 2)
                    dweight[:, :, i, j] = _product(turned, seen.t()) if ONEDNN else turned @ seen
        if ctx.needs_input_grad[2]:
            dbias = rows.sum(0)
        return dx, dweight, dbias, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, int]) -> Tensor:
    """Compute what :func:`torch.nn.functional.conv2d` does without padding.

    Args:
        x: (batch, channel, height, width), channels side by side in memory.
        weight: (channel', channel, height, width).
        bias: (channel'), or None.
        stride: in both directions.

    Returns:
        (batch, channel', height', width').
    """
    weight = weight.contiguous(memory_format=torch.channels_last)
    if _serves(x, weight):
        return _Convolution.apply(x, weight, bias, stride)
    return F.conv2d(x, weight, bias, stride)


def depthwise_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, past: int, future: int
) -> Tensor:
    """Convolve each channel of x over time.

    Args:
        x: (batch, time, channel).
        weight: (channel, 1, past + 1 + future).
        bias: (channel), or None.
        past, future: frames before and after a frame that it sees, zeros beyond either end.

    Returns:
        (batch, time, channel).
    """
    if not tuned(x):
        x = F.pad(x.transpose(1, 2), (past, future))
        return F.conv1d(x, weight, bias, groups=len(weight)).transpose(1, 2)
    # A causal convolution, `future` frames late.
    x = F.pad(x, (0, 0, 0, future)) if future else x
    y = causal_conv1d_fn(x.transpose(1, 2), weight.squeeze(1), bias)
    assert isinstance(y, Tensor)  # no final states were asked for
    return y.transpose(1, 2)[:, future:]


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`; on the CPU one random number of 64 bits serves four elements.

    There the rate is a multiple of 2^-16, the nearest one to ``p`` (off by 8e-6 at most), and what
    is kept is divided by the share that is kept indeed, so that the mean stays exact. Torch's own
    form takes more than twice as long.

    Raises:
        ValueError: ``p`` does not lie in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        if p != 1:  # which drops all, as in torch
            check_rates("Dropout", dropout_rate=p)
        super().__init__(p)

    def forward(self, x: Tensor) -> Tensor:
        """(...) -> the same shape."""
        dropped = round(self.p * LEVELS)
        if (
            not self.training
            or not tuned(x)
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
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.ops.aten.native_dropout_backward(x, keep, scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (keep,) = ctx.saved_tensors
        return _Drop.apply(grad, keep, ctx.scale), None, None
