"""The selective scan by mamba_ssm's CUDA kernel, where that is built.

It knows neither lengths nor direction. Padding gets steps of size zero and zeros for the rest, so
that it leaves the state as it is; the reversed direction gathers each sequence's own frames in
reverse and gathers the output back. What it cannot do at all, :func:`refuses` says.
"""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from mambaasr.ops.gpu import DTYPES, attempt, unfit
from mambaasr.ops.lengths import keep, reversal, take, valid_mask
from mambaasr.ops.selective_scan import naive
from mambaasr.ops.selective_scan.groups import same_groups

__all__ = ["refuses", "selective_scan", "selective_state_update", "unavailable"]

INTERFACE, EXTENSION = "mamba_ssm.ops.selective_scan_interface", "selective_scan_cuda"
# Releases after 2.3.2 build the scan only when MAMBA_KEEP_CUDA_BUILD says so.
GET = (
    "build it on the GPU machine, against the torch that is installed (needs nvcc): "
    "MAMBA_FORCE_BUILD=TRUE MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation "
    "--no-cache-dir mamba-ssm==2.3.2.post1 (with --force-reinstall --no-deps where one is "
    "installed), or take backend='triton', which needs no build"
)
MAX_STATES = 256
# softplus of it is 0 whatever the bias; fp16 holds it too.
NO_STEP = -1e4


def unavailable(tensor: Tensor) -> str | None:
    """Say why mamba_ssm's scan cannot run on ``tensor``, or None where it can."""
    reason = unfit(tensor)
    if reason is not None:
        return reason
    # The compiled part first: without it, some releases fail to import and others only to run.
    for name in (EXTENSION, INTERFACE):
        error = attempt(name)[1]
        if error is not None:
            return f"{name} cannot be imported ({error}); {GET}"
    return None


def refuses(
    *, tensors: Sequence[Tensor | None], initial_state: Tensor | None, return_last_state: bool
) -> str | None:
    """Say which argument of a call mamba_ssm's scan cannot serve, or None."""
    if initial_state is not None:
        return "mamba_ssm's scan has no initial_state; backend='triton' has"
    A = tensors[2]
    states = 0 if A is None else A.shape[1]
    if states > MAX_STATES:
        return f"mamba_ssm's scan takes d_state up to {MAX_STATES}, not {states}; use 'triton'"
    present = [x for x in tensors if x is not None]
    for x in present:
        if x.dtype not in DTYPES:
            return f"mamba_ssm's scan does not take {x.dtype}; backend='triton' computes in float32"
    if return_last_state and torch.is_grad_enabled() and any(x.requires_grad for x in present):
        return (
            "mamba_ssm's scan drops the gradient of the last state (return_last_state); "
            "backend='triton' has it, and under torch.no_grad() 'cuda' serves too"
        )
    return None


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
    """See :func:`mambaasr.ops.selective_scan_fn`; arguments are checked there."""
    if u.numel() == 0:  # the kernel cannot be launched over nothing
        return naive.selective_scan(
            u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state
        )
    batch, _, time = u.shape
    mask = None
    if lengths is not None:
        mask = valid_mask(lengths, time)
        if delta_bias is not None and not delta_softplus:
            # No delta cancels a bias exactly, so it goes in before padding is masked.
            delta = delta.float() + delta_bias.float()[:, None]
            delta_bias = None
    B, C = same_groups(B, C)
    # One dtype for all, the most precise that was given.
    dtype = functools.reduce(
        torch.promote_types, (x.dtype for x in (u, delta, B, C, z) if x is not None)
    )
    order = reversal(lengths, batch, time, u.device) if reverse else None

    def row(x: Tensor, fill: float = 0.0) -> Tensor:
        x = x if order is None else take(x, order, time=-1)
        return keep(x, mask, fill, time=-1).to(dtype)

    u_, B, C, z = row(u), row(B), row(C), None if z is None else row(z)
    delta = row(delta, NO_STEP if delta_softplus else 0.0)
    D, delta_bias = (None if x is None else x.float() for x in (D, delta_bias))
    out, last = attempt(INTERFACE)[0].selective_scan_fn(
        u_, delta, A.float(), B, C, D, z, delta_bias, delta_softplus, True
    )
    out = keep(out, mask, time=-1)
    return (out if order is None else take(out, order, time=-1)).to(u.dtype), last


# mamba_ssm's own step is Triton code with other groups than ours; a few torch operations serve.
selective_state_update = naive.selective_state_update
