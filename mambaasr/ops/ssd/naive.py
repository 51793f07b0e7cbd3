"""The scan of Mamba-2 in plain torch: the truth that every other backend is tested against.

Symbols (Dao and Gu, "Transformers are SSMs", arXiv 2405.21060, equations 1 and 2 with a scalar A
for each head; b batch, t time, h head, p headdim, n state):

    dt_t = clamp(softplus(dt_t + dt_bias))               step size   (b, h)
    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T           state       (b, h, p, n)
    y_t = h_t C_t + D x_t                                output      (b, h, p)
    out_t = y_t * silu(z_t)                              gate        (b, h, p)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import keep, valid_mask
from mambaasr.ops.ssd.steps import step_sizes


def unavailable(tensor: Tensor) -> str | None:
    """Pure torch runs anywhere."""
    return None


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

    Returns:
        out (b, t, h, p) in the dtype of x, final state (b, h, p, n) in that of the computation.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    batch, time, heads, headdim = x.shape
    mask = None if lengths is None else valid_mask(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, dtype)
    x_, B_, C_ = (keep(v.to(dtype), mask) for v in (x, B, C))
    B_, C_ = (v.repeat_interleave(heads // B.shape[2], dim=2) for v in (B_, C_))  # (b, t, h, n)
    decay = torch.exp(dt * A.to(dtype))[..., None, None]  # (b, t, h, 1, 1)
    drive = (dt.unsqueeze(-1) * x_).unsqueeze(-1) * B_.unsqueeze(-2)  # (b, t, h, p, n)
    if initial_states is None:
        h = torch.zeros((), dtype=dtype, device=x.device)
        h = h.expand(batch, heads, headdim, B.shape[3])
    else:
        h = initial_states.to(dtype)
    # unbind costs one view a step and one stack in its backward pass; indexing would make the
    # backward pass allocate a whole gradient at every step.
    steps = list(zip(decay.unbind(1), drive.unbind(1), C_.unbind(1), strict=True))
    outputs = []
    for a, b, c in reversed(steps) if reverse else steps:
        h = torch.addcmul(b, a, h)
        outputs.append((h * c.unsqueeze(-2)).sum(-1))
    if reverse:
        outputs.reverse()
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x_)
    if D is not None:
        y = y + D.to(dtype).reshape(heads, -1) * x_
    if z is not None:
        y = y * F.silu(keep(z.to(dtype), mask))
    return keep(y, mask).to(x.dtype), h
