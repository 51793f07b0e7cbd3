"""The maths of state-space models: torch in, torch out, no ESPnet.

Names and layouts are those of mamba_ssm and causal_conv1d, so that these are drop-ins.
"""

from mambaasr.ops.causal_conv1d import causal_conv1d_fn, causal_conv1d_update
from mambaasr.ops.selective_scan import selective_scan_fn, selective_state_update
from mambaasr.ops.ssd import mamba_chunk_scan_combined

__all__ = [
    "causal_conv1d_fn",
    "causal_conv1d_update",
    "mamba_chunk_scan_combined",
    "selective_scan_fn",
    "selective_state_update",
]
