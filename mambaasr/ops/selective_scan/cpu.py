"""The selective scan by the compiled CPU kernel, as an op that torch.compile and export know.

Memory is proportional to batch x channel x time: the backward pass recomputes the states of a chunk
of frames from those saved at its start.
"""

import torch
from torch import Tensor

from mambaasr.ops.library import register
from mambaasr.ops.native import call
from mambaasr.ops.native.call import floats, integers, pointer, tensor, unavailable
from mambaasr.ops.selective_scan.groups import grouped, same_groups

__all__ = ["selective_scan", "selective_state_update", "unavailable"]

_NOT_BACKWARD = (0,) * 22  # the fields of ScanArgs that the forward pass does not read


def _chunk(states):
    """Frames between saved states, which take states / frames as much memory as u."""
    return 32 if states <= 32 else 64 if states <= 64 else 128


def _block(batch, channels, groups, states, threads):
    """Channels that a task walks through."""
    # A whole row of u is what memory likes best; but a task's states must stay in a cache.
    most = 512 if states <= 32 else 256 if states <= 64 else 128
    return call.block(batch * groups, channels // groups, threads, most)


# The sums of dB and dC over blocks keep their order for any number of threads, as the backward pass
# cuts blocks for two. More threads share them by segments, which cost it little.
_BACKWARD_THREADS = 2


def _segments(tasks, threads, chunks, least):
    """Pieces of time walked side by side, or 1 where there would be fewer than ``least``.

    They are for threads that have no task: each but the last is walked twice. A piece is long
    against the states that it hands on.
    """
    pieces = min(threads // tasks, chunks // 4) if tasks else 1
    return pieces if pieces >= least else 1


def _time_major(matrix):
    """(b, n, t) or (b, g, n, t) -> float32 (b, g, t, n) with the states side by side."""
    matrix = grouped(matrix).transpose(2, 3)
    if matrix.dtype != torch.float32 or matrix.stride(3) != 1:
        matrix = matrix.to(torch.float32).contiguous()
    return matrix


def _record(u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse, out, last, saved, back):
    """What both passes hand over, in the order of ScanArgs; segments; memory to keep alive."""
    batch, channels, time = u.shape
    states, groups = A.shape[1], B.shape[1]
    frames, threads = _chunk(states), call.threads(u.numel() * states)
    block = _block(batch, channels, groups, states, _BACKWARD_THREADS if back else threads)
    blocks = groups * -(-(channels // groups) // block)
    segments = _segments(batch * blocks, threads, -(-time // frames), 2 if back else 3)
    room = (batch, blocks, segments, states + 1, block)
    carry = torch.empty(room, device=u.device) if segments > 1 else None
    record = (
        *(threads, batch, channels, time, states, groups),
        *(softplus, reverse, frames, block, segments, pointer(lengths)),
        *(pointer(x) for x in (A, D, bias, h0, last, saved, carry)),
        *(*tensor(u), *tensor(delta), *tensor(z), *tensor(out)),
        *(B.data_ptr(), *B.stride()[:3], C.data_ptr(), *C.stride()[:3]),
    )
    return record, blocks, segments, carry


def _saved_shape(u, A, save):
    batch, channels, time = u.shape
    states = A.shape[1]
    return (batch, -(-time // _chunk(states)), states, channels) if save else 0


def _forward(u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse, save):
    out = call.empty_like(u)
    last = torch.empty(*u.shape[:2], A.shape[1], device=u.device)
    # Zeros, as chunks that the kernel skips must not make the op's output random.
    room = torch.empty if lengths is None else torch.zeros
    saved = room(_saved_shape(u, A, save), device=u.device)
    A, D, bias, h0 = floats(A), floats(D), floats(bias), floats(h0)
    lengths = integers(lengths)
    inputs = (u, delta, A, _time_major(B), _time_major(C), D, z, bias, h0, lengths)
    rest = (softplus, reverse, out, last, saved if save else None, False)
    record, _, _, carry = _record(*inputs, *rest)
    call.call("scan_forward", *record, *_NOT_BACKWARD)
    return out, last, saved


def _backward(dout, dlast, saved, u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse):
    batch, channels, time = u.shape
    states = A.shape[1]
    B_, C_ = _time_major(B), _time_major(C)
    groups = B_.shape[1]
    new = {"dtype": torch.float32, "device": u.device}
    du, ddelta = call.empty_like(u), call.empty_like(delta)
    dz = None if z is None else call.empty_like(z)
    lengths = integers(lengths)
    A_, D_, bias_, h0_, dlast = floats(A), floats(D), floats(bias), floats(h0), floats(dlast)
    inputs = (u, delta, A_, B_, C_, D_, z, bias_, h0_, lengths, softplus, reverse)
    record, blocks, segments, carry = _record(*inputs, dout, None, saved, True)
    dA = torch.empty(batch * segments, channels, states, **new)
    dD, dbias = (torch.empty(batch * segments, channels, **new) for _ in range(2))
    dh0 = torch.empty(batch, channels, states, **new)
    dB, dC = (torch.empty(batch, groups, blocks // groups, time, states, **new) for _ in range(2))
    call.call(
        "scan_backward",
        *record,
        *(pointer(x) for x in (dlast, dA, dD, dbias, dh0)),
        *(*tensor(du), *tensor(ddelta), *tensor(dz)),
        *(pointer(dB), pointer(dC)),
    )
    dB, dC = (
        call.sum_terms(x, 2).transpose(2, 3).reshape(like.shape).to(like.dtype)
        for x, like in ((dB, B), (dC, C))
    )
    dA, dD, dbias = (
        x[:batch] if like is None else call.sum_terms(x, 0).to(like.dtype)
        for x, like in ((dA, A), (dD, D), (dbias, bias))
    )
    dz = torch.empty(0, **new) if z is None else dz
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, dh0 if h0 is None else dh0.to(h0.dtype)]


def _fake_forward(u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse, save):
    last = torch.empty(*u.shape[:2], A.shape[1], device=u.device)
    saved = torch.empty(_saved_shape(u, A, save), device=u.device)
    return call.empty_like(u), last, saved


def _fake_backward(
    dout, dlast, saved, u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse
):
    def matrix(x):
        shape = (x.shape[0], x.shape[-1], x.shape[-2]) if x.dim() == 3 else x.mT.shape
        return torch.empty(shape, dtype=x.dtype, device=x.device).mT

    def vector(x, *shape):
        return torch.empty(shape, dtype=torch.float32 if x is None else x.dtype, device=u.device)

    batch, channels, _ = u.shape
    states = A.shape[1]
    return [
        *(call.empty_like(u), call.empty_like(delta), vector(A, channels, states)),
        *(matrix(B), matrix(C)),
        vector(D, *((batch, channels) if D is None else (channels,))),
        torch.empty(0, device=u.device) if z is None else call.empty_like(z),
        vector(bias, *((batch, channels) if bias is None else (channels,))),
        vector(h0, batch, channels, states),
    ]


_op = register(
    "selective_scan",
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, Tensor? lengths",
    "bool softplus, bool reverse",
    _forward,
    _backward,
    _fake_forward,
    _fake_backward,
    saved=1,
)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    lengths: Tensor | None,
    reverse: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.selective_scan_fn`; arguments are checked there."""
    B, C = same_groups(B, C)
    tensors = (u, call.io(delta), A, B, C, D, call.io(z), delta_bias, initial_state, lengths)
    out, last, _ = _op(*tensors, delta_softplus, reverse)
    return out, last


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> Tensor:
    """Run one step, in place; see :func:`mambaasr.ops.selective_state_update`."""
    h = floats(state)  # a scan over one frame, from and to the same memory
    u, delta = (call.io(v).unsqueeze(2) for v in (x, dt))
    z = None if z is None else call.io(z).unsqueeze(2)
    B, C = same_groups(B.unsqueeze(-1), C.unsqueeze(-1))
    out = torch.empty_like(u)
    inputs = (u, delta, floats(A), _time_major(B), _time_major(C), floats(D), z, floats(dt_bias))
    record, *_ = _record(*inputs, h, None, dt_softplus, False, out, h, None, False)
    call.call("scan_forward", *record, *_NOT_BACKWARD)
    if h is not state:
        state.copy_(h)
    return out.squeeze(2)
