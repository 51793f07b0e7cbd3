"""Groups of B and C."""

import math

from torch import Tensor


def grouped(matrix: Tensor) -> Tensor:
    """(b, n, t) -> (b, 1, n, t): one group for all channels; with groups it stays as it is."""
    return matrix.unsqueeze(1) if matrix.dim() == 3 else matrix


def same_groups(B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """B and C with equally many groups."""
    if B.dim() == C.dim() and B.shape[:-2] == C.shape[:-2]:
        return B, C
    B, C = grouped(B), grouped(C)
    groups = math.lcm(B.shape[1], C.shape[1])
    B, C = (x.repeat_interleave(groups // x.shape[1], dim=1) for x in (B, C))
    return B, C
