"""The scan of Mamba-2 by matrix products, on any device, as an op that torch.compile knows.

All arithmetic is torch's own, mostly batched matrix products; see chunks.py. Nothing needs a
compiler. Memory is proportional to batch x time x channel.
"""

import torch
from torch import Tensor

from mambaasr.ops.lengths import keep, valid_mask
from mambaasr.ops.library import register
from mambaasr.ops.ssd import chunks
from mambaasr.ops.ssd.steps import step_sizes


def unavailable(tensor: Tensor) -> str | None:
    """Pure torch runs anywhere."""
    return None


CHUNK = 64
# Numbers of an x-sized piece of a tile: enough to keep a GPU busy, little against its memory.
_TILE = 1 << 24


def _sizes(batch, time, heads, headdim):
    """Choose chunks and tiles: all sequences together, as much of the time as memory allows."""
    chunk = max(1, min(CHUNK, time))
    frames = min(_TILE // max(1, batch * heads * headdim), time)
    return chunks.Sizes(chunk, max(1, frames // chunk), max(1, batch))


def _outputs(x, a, B, z, sizes, save, new):
    """out, last, y, saved by ``new``; y is the output before the gate, if there is one."""
    batch, time, heads, headdim = x.shape
    groups, states = B.shape[2:]
    like = {"dtype": a.dtype, "device": x.device}
    slots = chunks.Sizes(*sizes).slots(time)
    return (
        new(x.shape, dtype=x.dtype, device=x.device),
        new((batch, heads, headdim, states), **like),
        new(x.shape if save and z is not None else 0, **like),
        # Zeros, as unused slots must not make the op's output random.
        torch.zeros(
            (batch, slots, groups, states, heads // groups, headdim) if save else 0, **like
        ),
    )


def _room(x, lengths):
    """What allocates outputs: zeros where there are frames that no tile visits, or no frames."""
    return torch.empty if lengths is None and x.shape[1] > 0 else torch.zeros


def _forward(x, dt, a, B, C, D, z, h0, lengths, reverse, sizes, save):
    out, last, y, saved = _outputs(x, a, B, z, sizes, save, _room(x, lengths))
    if h0 is not None:
        last.copy_(h0)  # for sequences without a frame
    scan = chunks.Scan(x, dt, a, B, C, D, z, lengths, reverse, chunks.Sizes(*sizes))
    chunks.forward(
        scan, h0, out, last, y if y.dim() == 4 else None, saved if saved.dim() == 6 else None
    )
    return out, last, y, saved


def _gradients(x, dt, a, B, C, D, z, last_shape, new):
    def like(t):
        return new(t.shape, dtype=t.dtype, device=t.device)

    wide = {"dtype": a.dtype, "device": a.device}
    return [
        *(like(x), like(dt), like(a), like(B), like(C)),
        new(0, **wide) if D is None else like(D),
        new(0, **wide) if z is None else like(z),
        new(last_shape, **wide),
    ]


def _state_shape(x, B):
    return x.shape[0], x.shape[2], x.shape[3], B.shape[3]


def _backward(dout, dlast, y, saved, x, dt, a, B, C, D, z, h0, lengths, reverse, sizes):
    grads = _gradients(x, dt, a, B, C, D, z, _state_shape(x, B), _room(x, lengths))
    dx, ddt, da, dB, dC, dD, dz, dh0 = grads
    if dlast is not None:
        dh0.copy_(dlast)  # for sequences without a frame
    scan = chunks.Scan(x, dt, a, B, C, D, z, lengths, reverse, chunks.Sizes(*sizes))
    wide = torch.zeros(x.shape[2:], dtype=a.dtype, device=a.device)
    into = (dx, ddt, da, dB, dC, None if z is None else dz, wide, dh0)
    chunks.backward(scan, saved, y, dout, dlast, into)
    if D is not None:
        dD.copy_(wide.sum(1) if D.dim() == 1 else wide)
    return grads


def _fake_forward(x, dt, a, B, C, D, z, h0, lengths, reverse, sizes, save):
    return _outputs(x, a, B, z, sizes, save, torch.empty)


def _fake_backward(dout, dlast, y, saved, x, dt, a, B, C, D, z, h0, lengths, reverse, sizes):
    return _gradients(x, dt, a, B, C, D, z, _state_shape(x, B), torch.empty)


_op = register(
    "ssd",
    "Tensor x, Tensor dt, Tensor a, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? h0, "
    "Tensor? lengths",
    "bool reverse, int[] sizes",
    _forward,
    _backward,
    _fake_forward,
    _fake_backward,
    saved=2,
    devices=("CompositeExplicitAutograd",),
)


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    initial_states: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    sizes: chunks.Sizes,
) -> tuple[Tensor, Tensor]:
    """Run the op in pieces of these sizes; dt are the step sizes themselves, 0 at padding.

    With lengths the sequences go through one by one, and padding is never visited.
    """
    # A chunk sums these exponents, which infinite ones would turn into NaN; exp(-1e30) is 0 too.
    a = (dt * A.to(dt.dtype)).clamp(min=-1e30)
    h0 = None if initial_states is None else initial_states.to(dt.dtype).contiguous()
    out, last, _, _ = _op(x, dt, a, B, C, D, z, h0, lengths, reverse, list(sizes))
    return out, last


def chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None,
    z: Tensor | None,
    dt_bias: Tensor | None,
    initial_states: Tensor | None,
    softplus: bool,
    limit: tuple[float, float],
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.mamba_chunk_scan_combined`; arguments are checked there.

    Padding is visited, with steps of 0 that leave the state alone: lengths stay on the device.
    """
    batch, time, heads, headdim = x.shape
    mask = None if lengths is None else valid_mask(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, torch.promote_types(x.dtype, torch.float32))
    x, B, C = (keep(v, mask) for v in (x, B, C))
    sizes = _sizes(batch, time, heads, headdim)
    out, last = scan(x, dt, A, B, C, D, keep(z, mask), initial_states, None, reverse, sizes)
    return keep(out, mask), last
