"""The scan of Mamba-2 by mamba_ssm's own Triton kernels, on a GPU.

They know neither lengths nor direction: padding gets steps of size zero and zeros for the rest, and
the reversed direction gathers each sequence's own frames in reverse and the output back.
"""

import torch
from torch import Tensor

from mambaasr.ops.gpu import attempt, unfit
from mambaasr.ops.lengths import keep, reversal, take, valid_mask
from mambaasr.ops.ssd.steps import step_sizes

MODULE = "mamba_ssm.ops.triton.ssd_combined"
# Its Triton kernels need no nvcc, but releases up to 2.3.2 import the compiled scan before them.
GET = (
    "install mamba_ssm on the GPU machine, against the torch that is installed: "
    "MAMBA_FORCE_BUILD=TRUE MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation "
    "--no-cache-dir mamba-ssm==2.3.2.post1 (needs nvcc), or let backend='auto' take 'torch', "
    "which is slower"
)


def unavailable(tensor: Tensor) -> str | None:
    """Say why mamba_ssm's kernels cannot run on ``tensor``, or None where they can."""
    reason = unfit(tensor)
    if reason is not None:
        return reason
    error = attempt(MODULE)[1]
    return None if error is None else f"{MODULE} cannot be imported ({error}); {GET}"


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
    if x.numel() == 0:
        # The kernels cannot be launched over nothing.
        if initial_states is None:
            return x, x.new_zeros(batch, heads, headdim, B.shape[3], dtype=torch.float32)
        return x, initial_states.float()
    mask = None if lengths is None else valid_mask(lengths, time)
    dt = step_sizes(dt, dt_bias, softplus, limit, mask, torch.float32)
    x, B, C = (keep(v, mask) for v in (x, B, C))
    z = keep(z, mask)
    if reverse:
        index = reversal(lengths, batch, time, x.device)
        x, dt, B, C = (take(v, index) for v in (x, dt, B, C))
        z = take(z, index)
    out, final_states = attempt(MODULE)[0].mamba_chunk_scan_combined(
        x,
        dt,
        A.float(),
        B.to(x.dtype),
        C.to(x.dtype),
        chunk_size,
        D=D,
        z=z,
        initial_states=initial_states,
        dt_limit=(-float("inf"), float("inf")),
        return_final_states=True,
    )
    if reverse:
        out = take(out, index)
    return keep(out, mask), final_states
