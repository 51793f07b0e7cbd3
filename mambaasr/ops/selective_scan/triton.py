"""The selective scan by our own Triton kernels, for a GPU machine where nobody built CUDA code.

An op of ``torch.library``, as the CPU kernel is, so that torch.compile and export keep it whole.
Memory is proportional to batch x channel x time: states are saved at the start of each chunk of
frames, the others are recomputed. No atomics: the same call gives the same bits.
"""

import functools
import importlib
import math

import torch
from torch import Tensor

from mambaasr.ops.gpu import triton_unavailable
from mambaasr.ops.library import register
from mambaasr.ops.native.call import empty_like, floats
from mambaasr.ops.selective_scan.groups import grouped, same_groups

__all__ = ["selective_scan", "selective_state_update", "unavailable"]

unavailable = triton_unavailable

PASSING_BLOCK = 256


@functools.cache
def _kernels():
    return importlib.import_module("mambaasr.ops.selective_scan.triton_kernels")


def _power(number):
    """The least power of two that is not smaller."""
    return 1 << max(number - 1, 0).bit_length()


def _plan(per_group, time, states):
    """Frames and channels of a tile, warps of a program.

    Saved states take states / frames as much memory as u, partial sums of dB and dC states /
    channels.
    """
    frames, warps = (32, 4) if states <= 64 else (64, 8)
    return min(frames, max(_power(time), 2)), min(32, _power(per_group)), warps


class _Grid:
    """The launch of tiles over (batch, chunk, group, block of channels)."""

    def __init__(self, u: Tensor, A: Tensor, B: Tensor) -> None:
        self.u = u
        self.batch, self.channels, self.time = u.shape
        self.states, self.groups = A.shape[1], B.shape[1]
        per_group = self.channels // self.groups
        self.frames, self.width, self.warps = _plan(per_group, self.time, self.states)
        self.chunks = -(-self.time // self.frames)
        self.blocks = -(-per_group // self.width)
        self.size = (self.time, self.channels, self.groups)
        self.new = {"dtype": torch.float32, "device": u.device}

    def state(self):
        return torch.empty(self.batch, self.chunks, self.states, self.channels, **self.new)

    def per_channel(self):
        return torch.empty(self.batch, self.chunks, self.channels, **self.new)

    def run(self, kernel, *arguments, softplus, reverse):
        tiles = self.batch * self.chunks * self.groups * self.blocks
        if tiles:
            with torch.cuda.device_of(self.u):
                kernel[(tiles,)](
                    *arguments,
                    STATES=self.states,
                    SOFTPLUS=softplus,
                    REVERSE=reverse,
                    BT=self.frames,
                    BD=self.width,
                    num_warps=self.warps,
                )

    def pass_states(self, added, sums, A, first, backward):
        """Run over the chunks; return what each starts from and what comes out at the end."""
        before = self.state()
        last = torch.empty(self.batch, self.states, self.channels, **self.new)
        size = self.states * self.channels
        grid = (self.batch * -(-size // PASSING_BLOCK),)
        arguments = (added, sums, A, first, before, last, self.chunks, self.channels, size)
        if grid[0]:
            with torch.cuda.device_of(self.u):
                _kernels().state_passing[grid](*arguments, BACKWARD=backward, BLOCK=PASSING_BLOCK)
        return before, last


def _state_first(x):
    """(..., d, n) or None -> contiguous float32 (..., n, d)."""
    return None if x is None else floats(x.mT)


def _log2(A):
    """A in units of log2, as exp2 takes it."""
    return _state_first(A) * math.log2(math.e)


def _strides(*tensors):
    """All strides one after the other; zeros for an absent (batch, channel, time) tensor."""
    return [n for x in tensors for n in ((0, 0, 0) if x is None else x.stride())]


def _forward(u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse, save):
    out = empty_like(u)
    B, C, D, bias = grouped(B), grouped(C), floats(D), floats(bias)
    grid = _Grid(u, A, B)
    A = _log2(A)
    added, sums = grid.state(), grid.per_channel()
    flags = {"softplus": softplus, "reverse": reverse}
    grid.run(
        _kernels().chunk_state,
        *(u, delta, B, A, bias, lengths, added, sums, *grid.size),
        *_strides(u, delta, B),
        **flags,
    )
    before, last = grid.pass_states(added, sums, A, _state_first(h0), backward=False)
    grid.run(
        _kernels().chunk_scan,
        *(u, delta, B, C, z, A, D, bias, lengths, before, out, *grid.size),
        *_strides(u, delta, B, C, z, out),
        **flags,
    )
    if not save:
        before, sums = (torch.empty(0, **grid.new) for _ in range(2))
    return out, last.mT.contiguous(), before, sums


def _backward(
    dout, dlast, before, sums, u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse
):
    du, ddelta = empty_like(u), empty_like(delta)
    dz = torch.empty(0, device=u.device) if z is None else empty_like(z)
    B_, C_, D_, bias_ = grouped(B), grouped(C), floats(D), floats(bias)
    grid = _Grid(u, A, B_)
    A_ = _log2(A)
    flags = {"softplus": softplus, "reverse": reverse}
    added = grid.state()
    grid.run(
        _kernels().chunk_scan_bwd_dstates,
        *(delta, C_, z, dout, A_, bias_, lengths, added, *grid.size),
        *_strides(delta, C_, z, dout),
        **flags,
    )
    after, dh0 = grid.pass_states(added, sums, A_, _state_first(dlast), backward=True)
    dA = added  # `pass_states` has read it
    rows = (grid.batch, grid.groups, grid.blocks, grid.states, grid.time)
    dB, dC = (torch.empty(rows, **grid.new) for _ in range(2))
    dD, dbias = grid.per_channel(), grid.per_channel()
    grid.run(
        _kernels().chunk_scan_bwd,
        *(u, delta, B_, C_, z, dout, A_, D_, bias_, lengths, before, after),
        *(du, ddelta, None if z is None else dz, dA, dB, dC, dD, dbias, *grid.size),
        *_strides(u, delta, B_, C_, z, dout, du, ddelta, None if z is None else dz),
        **flags,
    )
    dB, dC = (x.sum(2).reshape(like.shape).to(like.dtype) for x, like in ((dB, B), (dC, C)))
    dA = dA.sum((0, 1)).mT.contiguous().to(A.dtype)
    dD, dbias = (
        x.sum((0, 1)).to(torch.float32 if like is None else like.dtype)
        for x, like in ((dD, D), (dbias, bias))
    )
    dh0 = dh0.mT.contiguous().to(torch.float32 if h0 is None else h0.dtype)
    return [du, ddelta, dA, dB, dC, dD, dz, dbias, dh0]


def _fake_forward(u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse, save):
    grid = _Grid(u, A, grouped(B))
    last = torch.empty(*u.shape[:2], grid.states, **grid.new)
    if not save:
        return empty_like(u), last, torch.empty(0, **grid.new), torch.empty(0, **grid.new)
    return empty_like(u), last, grid.state(), grid.per_channel()


def _fake_backward(
    dout, dlast, before, sums, u, delta, A, B, C, D, z, bias, h0, lengths, softplus, reverse
):
    def like(x, *shape):
        dtype = torch.float32 if x is None else x.dtype
        return torch.empty(shape, dtype=dtype, device=u.device)

    batch, channels, _ = u.shape
    return [
        *(empty_like(u), empty_like(delta)),
        *(like(x, *x.shape) for x in (A, B, C)),
        like(D, channels),
        torch.empty(0, device=u.device) if z is None else empty_like(z),
        like(bias, channels),
        like(h0, batch, channels, A.shape[1]),
    ]


_op = register(
    "selective_scan_triton",
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, "
    "Tensor? delta_bias, Tensor? initial_state, Tensor? lengths",
    "bool softplus, bool reverse",
    _forward,
    _backward,
    _fake_forward,
    _fake_backward,
    saved=2,
    devices=("CUDA", "CPU"),  # the CPU under Triton's interpreter, see `unavailable`
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
    tensors = (u, delta, A, B, C, D, z, delta_bias, initial_state, lengths)
    out, last, *_ = _op(*tensors, delta_softplus, reverse)
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
    batch, channels, states = state.shape
    B, C = (grouped(v) for v in same_groups(B.unsqueeze(-1), C.unsqueeze(-1)))
    out = torch.empty(batch, channels, dtype=x.dtype, device=x.device)
    width = max(1, min(_power(channels), 1024 // _power(states)))
    programs = batch * -(-channels // width)
    z_strides = (0, 0) if z is None else z.stride()
    if programs:
        with torch.cuda.device_of(x):
            _kernels().state_update[(programs,)](
                *(state, x, dt, _log2(A), B, C, floats(D), z, floats(dt_bias), out),
                *(channels, B.shape[1], states, *state.stride(), *x.stride(), *dt.stride()),
                *(*B.stride()[:3], *C.stride()[:3], *z_strides),
                SOFTPLUS=dt_softplus,
                BD=width,
                BN=_power(states),
            )
    return out
