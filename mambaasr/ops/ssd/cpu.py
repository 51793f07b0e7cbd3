"""The scan of Mamba-2 on the CPU, by matrix products or by the Mamba-1 kernel."""

import torch
from torch import Tensor

from mambaasr.ops.lengths import unpadded, valid_mask
from mambaasr.ops.native import call
from mambaasr.ops.selective_scan import cpu as selective_scan
from mambaasr.ops.ssd import chunks, products
from mambaasr.ops.ssd.steps import step_sizes


def unavailable(tensor: Tensor) -> str | None:
    """Say why this form does not run on ``tensor``, or None where it does."""
    if tensor.device.type == "cpu":
        return None
    return (
        f"it visits sequences one by one in pieces that fit a CPU's cache, the tensors are on "
        f"{tensor.device}"
    )


# The kernel's time grows with the states, that of the products hardly; they meet above so many.
# Below so many frames the products' overhead is most of their time, whatever the states.
STATES, FRAMES = 64, 64
# Numbers of an x-sized piece of a tile: with this many, the dozen such pieces that a tile works on
# stay in the second and third level cache.
_TILE = 1 << 17


def _kernel_is_faster(x, states):
    """Whether the Mamba-1 kernel can and should run over x (batch, time, head, headdim)."""
    small = states <= STATES or x.shape[0] * x.shape[1] <= FRAMES
    return small and call.unavailable(x) is None


def _sizes(batch, time, heads, headdim, states, lengths):
    """Choose chunks and tiles; chunk_size is a GPU's."""
    width = max(1, heads * headdim)
    chunk = max(1, min(products.CHUNK, time))
    # The state saved for each tile takes states / frames as much memory as x.
    frames = max(_TILE // width, 2 * states, chunk)
    frames = max(chunk, min(frames, -(-time // chunk) * chunk))
    sequences = 1
    if lengths is None:
        sequences = max(1, min(batch, _TILE // (width * frames)))
    return chunks.Sizes(chunk, max(1, frames // chunk), sequences)


def _by_kernel(x, dt, A, B, C, D, z, initial_states, lengths, reverse):
    """Scan a head of p channels as p channels of Mamba-1 with equal steps and decays."""
    heads, headdim = x.shape[2:]
    states = B.shape[3]
    out, last = selective_scan.selective_scan(
        x.flatten(2).transpose(1, 2),
        dt.unsqueeze(-1).expand(x.shape).flatten(2).transpose(1, 2),
        A.to(dt.dtype)[:, None, None].expand(-1, headdim, states).flatten(0, 1),
        B.permute(0, 2, 3, 1),
        C.permute(0, 2, 3, 1),
        None if D is None else D.reshape(heads, -1).expand(-1, headdim).flatten(),
        None if z is None else z.flatten(2).transpose(1, 2),
        None,
        False,
        lengths,
        reverse,
        None if initial_states is None else initial_states.flatten(1, 2),
    )
    return out.transpose(1, 2).unflatten(2, (heads, headdim)), last.unflatten(1, (heads, headdim))


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
    batch, time, heads, headdim = x.shape
    mask = None if lengths is None else valid_mask(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, torch.promote_types(x.dtype, torch.float32))
    states = B.shape[3]
    if _kernel_is_faster(x, states):
        return _by_kernel(x, dt, A, B, C, D, z, initial_states, lengths, reverse)
    if lengths is not None and unpadded(lengths, time):
        lengths = None  # sequences of one length go through together
    sizes = _sizes(batch, time, heads, headdim, states, lengths)
    return products.scan(x, dt, A, B, C, D, z, initial_states, lengths, reverse, sizes)
