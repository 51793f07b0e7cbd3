"""The precision of a scan."""

import torch
from torch import Tensor


def wide_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type of a scan's state beside inputs of ``dtype``: fp64, or else fp32."""
    return torch.promote_types(dtype, torch.float32)


def wide(x: Tensor) -> Tensor:
    """Return x in the type of a scan's state."""
    return x.to(wide_dtype(x.dtype))
