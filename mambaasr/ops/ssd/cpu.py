"""The scan of Mamba-2 on the CPU, as an op that torch.compile and export know.

All arithmetic is torch's own, mostly batched matrix products; see chunks.py. Nothing needs a
compiler. Memory is proportional to batch x time x channel.
"""

import torch
from torch import Tensor

from mambaasr.ops.lengths import unpadded, valid_mask
from mambaasr.ops.library import register
from mambaasr.ops.ssd import chunks
from mambaasr.ops.ssd.steps import step_sizes


def unavailable(tensor: Tensor) -> str | None:
    """Say why this form does not run on ``tensor``, or None where it does."""
    if tensor.device.type == "cpu":
        return None
    return (
        f"it visits sequences one by one in pieces that fit a CPU's cache, the tensors are on "
        f"{tensor.device}"
    )


# Numbers of an x-sized piece of a tile: with this many, the dozen such pieces that a tile works on
# stay in the second and third level cache.
_TILE = 1 << 17


def _sizes(batch, time, heads, headdim, groups, states, lengths):
    """Choose chunks and tiles; chunk_size is a GPU's."""
    width = max(1, heads * headdim)
    chunk = max(1, min(64, time))
    # The state saved for each tile takes states / frames as much memory as x.
    frames = max(_TILE // width, 2 * states, chunk)
    frames = max(chunk, min(frames, -(-time // chunk) * chunk))
    sequences = 1
    if lengths is None:
        sequences = max(1, min(batch, _TILE // (width * frames)))
    return chunks.Sizes(chunk, max(1, frames // chunk), sequences)


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
    """See :func:`mambaasr.ops.mamba_chunk_scan_combined`; arguments are checked there."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    batch, time, heads, headdim = x.shape
    groups, states = B.shape[2:]
    mask = None if lengths is None else valid_mask(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, dtype)
    # A chunk sums these exponents, which infinite ones would turn into NaN; exp(-1e30) is 0 too.
    a = (dt * A.to(dtype)).clamp(min=-1e30)
    if lengths is not None and unpadded(lengths, time):
        lengths = None  # sequences of one length go through together
    h0 = None if initial_states is None else initial_states.to(dtype).contiguous()
    tensors = (x, dt, a, B, C, D, z, h0, lengths)
    sizes = _sizes(batch, time, heads, headdim, groups, states, lengths)
    out, last, _, _ = _op(*tensors, reverse, list(sizes))
    return out, last
