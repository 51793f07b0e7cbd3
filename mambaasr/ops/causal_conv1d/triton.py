"""The causal depthwise convolution by our own Triton kernels, as an op of torch's library."""

import functools
import importlib

import torch
from torch import Tensor

from mambaasr.ops.causal_conv1d import naive
from mambaasr.ops.gpu import triton_unavailable
from mambaasr.ops.library import register
from mambaasr.ops.native.call import empty_like, floats

__all__ = ["causal_conv1d", "causal_conv1d_update", "unavailable"]

unavailable = triton_unavailable

FRAMES, CHANNELS = 32, 64  # of a tile


@functools.cache
def _kernels():
    return importlib.import_module("mambaasr.ops.causal_conv1d.triton_kernels")


def _tile(x):
    """Frames and channels of a tile, chunks of a sequence, programs in all."""
    batch, channels, time = x.shape
    frames = min(FRAMES, 1 << max(time - 1, 0).bit_length())
    width = min(CHANNELS, 1 << max(channels - 1, 0).bit_length())
    chunks = max(-(-time // frames), 1)
    return frames, width, chunks, batch * chunks * -(-channels // width)


def _launch(kernel, x, *arguments, **flags):
    frames, width, _, programs = _tile(x)
    if programs:
        with torch.cuda.device_of(x):
            kernel[(programs,)](*arguments, **flags, BT=frames, BD=width, num_warps=4)


def _forward(x, weight, bias, h0, lengths, silu, reverse):
    _, channels, time = x.shape
    out = empty_like(x)
    last = _last_like(x, weight).float()
    _launch(
        *(_kernels().outputs, x, x, floats(weight), floats(bias), floats(h0), lengths),
        *(out, last, time, channels, *x.stride(), *out.stride()),
        WIDTH=weight.shape[1],
        SILU=silu,
        REVERSE=reverse,
    )
    return out, last.to(x.dtype)


def _backward(dout, dlast, x, weight, bias, h0, lengths, silu, reverse):
    batch, channels, time = x.shape
    width, chunks = weight.shape[1], _tile(x)[2]
    new = {"dtype": torch.float32, "device": x.device}
    weight_ = floats(weight)
    dx = empty_like(x)
    dpre = torch.empty(batch, time, channels, **new)
    dweight = torch.empty(batch, chunks, width, channels, **new)
    dbias = torch.empty(batch, chunks, channels, **new)
    dh0 = torch.empty(batch, channels, width - 1, **new)
    _launch(
        *(_kernels().weight_gradients, x, x, weight_, floats(bias), floats(h0), lengths),
        *(dout, dpre, dweight, dbias, time, channels, *x.stride(), *dout.stride()),
        WIDTH=width,
        SILU=silu,
        REVERSE=reverse,
    )
    _launch(
        *(_kernels().input_gradients, x, dpre, weight_, floats(dlast), lengths, dx, dh0),
        *(time, channels, *dx.stride()),
        WIDTH=width,
        REVERSE=reverse,
    )
    dweight = dweight.sum((0, 1)).T.contiguous().to(weight.dtype)
    dbias = dbias.sum((0, 1)).to(torch.float32 if bias is None else bias.dtype)
    return [dx, dweight, dbias, dh0 if h0 is None else dh0.to(h0.dtype)]


def _last_like(x, weight):
    return torch.empty(*x.shape[:2], weight.shape[1] - 1, dtype=x.dtype, device=x.device)


def _fake_forward(x, weight, bias, h0, lengths, silu, reverse):
    return empty_like(x), _last_like(x, weight)


def _fake_backward(dout, dlast, x, weight, bias, h0, lengths, silu, reverse):
    def like(y, *shape):
        dtype = torch.float32 if y is None else y.dtype
        return torch.empty(shape, dtype=dtype, device=x.device)

    return [
        empty_like(x),
        like(weight, *weight.shape),
        like(bias, x.shape[1]),
        like(h0, *x.shape[:2], weight.shape[1] - 1),
    ]


_op = register(
    "causal_conv1d_triton",
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? lengths",
    "bool silu, bool reverse",
    _forward,
    _backward,
    _fake_forward,
    _fake_backward,
    devices=("CUDA", "CPU"),  # the CPU under Triton's interpreter, see `unavailable`
)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    lengths: Tensor | None,
    reverse: bool,
    initial_states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.causal_conv1d_fn`; arguments are checked there."""
    out, last = _op(x, weight, bias, initial_states, lengths, activation is not None, reverse)
    return out, last


# One frame is a handful of products a channel: a kernel of its own would save nothing.
causal_conv1d_update = naive.causal_conv1d_update
