"""Norms over channels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mambaasr.checks import check_choice


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight (arXiv 1910.07467), computed in at least fp32.

    Args:
        width: channels.
        eps: added to the mean square; mamba_ssm's by default.
    """

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))
        # ESPnet's list of norms that take no weight decay does not know this class.
        self.weight._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) -> the same; zeros stay zeros."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight = self.weight.to(dtype)
        return F.rms_norm(x.to(dtype), (len(weight),), weight, self.eps).to(x.dtype)

    def extra_repr(self) -> str:
        """Return what ``print`` shows between the brackets."""
        return f"{len(self.weight)}, eps={self.eps}"


NORMS = {"layer_norm": nn.LayerNorm, "rms_norm": RMSNorm}


def make_norm(name: str, width: int) -> nn.Module:
    """Make the norm that a yaml names.

    Args:
        name: "layer_norm" or "rms_norm".
        width: channels.

    Raises:
        ValueError: the name is unknown.
    """
    check_choice("norm", name, NORMS)
    return NORMS[name](width)
