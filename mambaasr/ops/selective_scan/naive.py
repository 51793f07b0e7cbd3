"""The selective scan in plain torch: the truth that every other backend is tested against.

Symbols (Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces",
arXiv 2312.00752, equations 1a, 1b and 2, algorithm 2; b batch, d channel, n state, t time):

    delta_t = softplus(delta_t + delta_bias)        step size                        (b, d)
    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t  state                         (b, d, n)
    y_t = <C_t, h_t> + D u_t                        output                           (b, d)
    out_t = y_t * silu(z_t)                         gate                             (b, d)
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import valid_mask


def unavailable(tensor: Tensor) -> str | None:
    """Pure torch runs anywhere."""
    return None


def _per_channel(x, channels):
    """(b, n, t) or (b, group, n, t) -> (t, b, d or 1, n); a group serves d / group channels."""
    if x.dim() == 3:
        return x.permute(2, 0, 1).unsqueeze(2)
    return x.permute(3, 0, 1, 2).repeat_interleave(channels // x.shape[1], dim=2)


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
    """See :func:`mambaasr.ops.selective_scan_fn`; arguments are checked there.

    Returns:
        out (b, d, t) in the dtype of u, last state (b, d, n) in the dtype of the computation.
    """
    dtype = torch.promote_types(u.dtype, torch.float32)
    channels, time = u.shape[1], u.shape[2]
    # Time first: unbind then costs one view a step, and its backward one stack. Indexing
    # x[:, :, t] instead would make the backward allocate a whole gradient at every step.
    u_, delta_ = (x.to(dtype).permute(2, 0, 1) for x in (u, delta))
    B_, C_ = (_per_channel(x.to(dtype), channels) for x in (B, C))
    mask = None
    if lengths is not None:
        mask = valid_mask(lengths, time).t().unsqueeze(-1)  # (t, b, 1)
        zero = torch.zeros((), dtype=dtype, device=u.device)
        u_, delta_ = (torch.where(mask, x, zero) for x in (u_, delta_))
        B_, C_ = (torch.where(mask.unsqueeze(-1), x, zero) for x in (B_, C_))
    if delta_bias is not None:
        delta_ = delta_ + delta_bias.to(dtype)
    if delta_softplus:
        delta_ = F.softplus(delta_)
    if mask is not None:
        # A step of size zero leaves the state as it is, so padding before (reverse) or after
        # (forward) a sequence does nothing, and the last state is that of its own last frame.
        delta_ = torch.where(mask, delta_, zero)

    decay = torch.exp(delta_.unsqueeze(-1) * A.to(dtype))  # (t, b, d, n)
    drive = (delta_ * u_).unsqueeze(-1) * B_  # (t, b, d, n)
    if initial_state is None:
        h = torch.zeros((), dtype=dtype, device=u.device).expand(*u.shape[:2], A.shape[1])
    else:
        h = initial_state.to(dtype)
    steps = list(zip(decay.unbind(0), drive.unbind(0), strict=True))
    states = []
    for a, b in reversed(steps) if reverse else steps:
        h = torch.addcmul(b, a, h)
        states.append(h)
    if reverse:
        states.reverse()
    if states:
        y = (torch.stack(states) * C_).sum(-1)  # (t, b, d)
    else:
        y = torch.zeros_like(u_)
    if D is not None:
        y = y + D.to(dtype) * u_
    if z is not None:
        z_ = z.to(dtype).permute(2, 0, 1)
        y = y * F.silu(z_ if mask is None else torch.where(mask, z_, zero))
    if mask is not None:  # zero already; but whatever comes back at padding must end here
        y = torch.where(mask, y, zero)
    return y.permute(1, 2, 0).to(u.dtype), h


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
    """Run one step; see :func:`mambaasr.ops.selective_state_update`."""
    channels = x.shape[1]
    x_, dt_ = x.to(state.dtype), dt.to(state.dtype)
    if dt_bias is not None:
        dt_ = dt_ + dt_bias.to(state.dtype)
    if dt_softplus:
        dt_ = F.softplus(dt_)
    B_, C_ = (_per_channel(v.to(state.dtype).unsqueeze(-1), channels)[0] for v in (B, C))
    state.mul_(torch.exp(dt_.unsqueeze(-1) * A.to(state.dtype)))
    state.add_((dt_ * x_).unsqueeze(-1) * B_)
    y = (state * C_).sum(-1)
    if D is not None:
        y = y + D.to(state.dtype) * x_
    if z is not None:
        y = y * F.silu(z.to(state.dtype))
    return y.to(x.dtype)
