"""The causal depthwise convolution by the compiled CPU kernel, as an op of torch's library."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.library import register
from mambaasr.ops.native import call
from mambaasr.ops.native.call import floats, integers, pointer, tensor, unavailable

__all__ = ["causal_conv1d", "causal_conv1d_update", "unavailable"]

_NOT_BACKWARD = (0,) * 9  # the fields of ConvArgs that the forward pass does not read


def _record(x, weight, bias, h0, lengths, silu, reverse, out, last):
    """What both passes hand over, in the order of ConvArgs."""
    threads = call.threads(x.numel())
    block = call.block(x.shape[0], x.shape[1], threads, 512)
    return (
        *(threads, *x.shape, weight.shape[1], block, silu, reverse, pointer(lengths)),
        *(pointer(weight), pointer(bias), pointer(h0), pointer(last), *tensor(x), *tensor(out)),
    )


def _last_like(x, weight):
    return torch.empty(*x.shape[:2], weight.shape[1] - 1, dtype=x.dtype, device=x.device)


def _forward(x, weight, bias, h0, lengths, silu, reverse):
    out, last = call.empty_like(x), _last_like(x, weight).float()
    lengths = integers(lengths)
    inputs = (x, floats(weight), floats(bias), floats(h0), lengths, silu, reverse)
    call.call("conv_forward", *_record(*inputs, out, last), *_NOT_BACKWARD)
    return out, last.to(x.dtype)


def _backward(dout, dlast, x, weight, bias, h0, lengths, silu, reverse):
    batch, channels, _ = x.shape
    width = weight.shape[1]
    new = {"dtype": torch.float32, "device": x.device}
    dx = call.empty_like(x)
    dweight = torch.empty(batch, channels, width, **new)
    dbias = torch.empty(batch, channels, **new)
    dh0 = torch.empty(batch, channels, width - 1, **new)
    lengths = integers(lengths)
    weight_, bias_, h0_, dlast = floats(weight), floats(bias), floats(h0), floats(dlast)
    call.call(
        "conv_backward",
        *_record(x, weight_, bias_, h0_, lengths, silu, reverse, dout, None),
        *(pointer(dlast), pointer(dweight), pointer(dbias), pointer(dh0), *tensor(dx)),
    )
    dweight = call.sum_terms(dweight, 0).to(weight.dtype)
    dbias = dbias if bias is None else call.sum_terms(dbias, 0).to(bias.dtype)
    return [dx, dweight, dbias, dh0 if h0 is None else dh0.to(h0.dtype)]


def _fake_forward(x, weight, bias, h0, lengths, silu, reverse):
    return call.empty_like(x), _last_like(x, weight)


def _fake_backward(dout, dlast, x, weight, bias, h0, lengths, silu, reverse):
    batch, channels, _ = x.shape
    dbias = x.new_empty(batch, channels, dtype=torch.float32) if bias is None else bias
    dh0 = _last_like(x, weight).float() if h0 is None else h0
    return [
        call.empty_like(x),
        *(torch.empty(like.shape, dtype=like.dtype, device=x.device) for like in (weight, dbias)),
        torch.empty(dh0.shape, dtype=dh0.dtype, device=x.device),
    ]


_op = register(
    "causal_conv1d",
    "Tensor x, Tensor weight, Tensor? bias, Tensor? initial_state, Tensor? lengths",
    "bool silu, bool reverse",
    _forward,
    _backward,
    _fake_forward,
    _fake_backward,
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


def causal_conv1d_update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """Run one step, in place: one frame. See :func:`mambaasr.ops.causal_conv1d_update`."""
    frame, state = call.io(x).unsqueeze(2), floats(conv_state)
    # A state longer than the kernel reaches: taps of zero lie before it.
    weight = floats(F.pad(weight, (state.shape[2] + 1 - weight.shape[1], 0)))
    out = torch.empty_like(frame)
    inputs = (frame, weight, floats(bias), state, None, activation is not None, False)
    call.call("conv_forward", *_record(*inputs, out, state), *_NOT_BACKWARD)
    if state is not conv_state:
        conv_state.copy_(state)
    return out.squeeze(2)
