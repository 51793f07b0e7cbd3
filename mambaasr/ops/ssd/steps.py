"""What all implementations share: masks and step sizes."""

import torch
import torch.nn.functional as F


def valid(lengths, time):
    """(batch) -> (batch, time, 1), true at valid frames; None for None."""
    if lengths is None:
        return None
    return (torch.arange(time, device=lengths.device) < lengths[:, None]).unsqueeze(-1)


def keep(x, mask):
    """x (batch, time, ...) with zeros, and no gradient, where the mask is false."""
    if mask is None or x is None:
        return x
    return torch.where(mask.reshape(*mask.shape[:2], *(1,) * (x.dim() - 2)), x, 0)


def step_sizes(dt, dt_bias, softplus, limit, mask, dtype):
    """Step sizes (batch, time, head) in ``dtype`` after bias, softplus and limit.

    They are zero at padding, where a frame then leaves the state as it is: padding before
    (reverse) or after a sequence does nothing.
    """
    dt = keep(dt.to(dtype), mask)
    if dt_bias is not None:
        dt = dt + dt_bias.to(dtype)
    if softplus:
        dt = F.softplus(dt)
    low, high = limit
    if low != -float("inf") or high != float("inf"):
        dt = dt.clamp(low, high)
    return keep(dt, mask)
