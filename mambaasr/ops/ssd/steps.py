"""The step sizes, which all implementations share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import keep


def step_sizes(
    dt: Tensor,
    dt_bias: Tensor | None,
    softplus: bool,
    limit: tuple[float, float],
    mask: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Return step sizes (batch, time, head) in ``dtype`` after bias, softplus and limit.

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
