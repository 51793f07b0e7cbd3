"""Selective scan, the recurrence of Mamba-1: signature, checks and backend selection."""

import torch
from torch import Tensor

from mambaasr.ops.dispatch import check_lengths, check_tensor, choose
from mambaasr.ops.selective_scan import cpu, cuda, naive, triton

IMPLEMENTATIONS = {"cpu": cpu, "cuda": cuda, "triton": triton, "naive": naive}


def _check_matrix(op, name, matrix, batch, channels, states, frames, device):
    """Check B or C; ``frames`` is (time,), or () for a single step."""
    if not isinstance(matrix, torch.Tensor):
        raise ValueError(f"{op}: {name} is {type(matrix).__name__}, expected a tensor")
    if matrix.dim() == len(frames) + 1:
        raise ValueError(
            f"{op}: {name} has shape {tuple(matrix.shape)}: constant matrices are not supported; "
            f"expected {(batch, states, *frames)} or (batch, group, d_state, ...)"
        )
    if matrix.dim() == len(frames) + 3:
        check_tensor(op, name, matrix, (batch, None, states, *frames), device)
        groups = matrix.shape[1]
        if groups == 0 or channels % groups:
            raise ValueError(f"{op}: {name} has {groups} groups, which do not divide {channels}")
    else:
        check_tensor(op, name, matrix, (batch, states, *frames), device)


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
    initial_state: Tensor | None = None,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Selective scan of Mamba (arXiv 2312.00752, algorithm 2), a drop-in for mamba_ssm's.

    Args:
        u: input (batch, channel, time), fp32, bf16, fp16 or fp64. Any strides: a transpose of a
            (batch, time, channel) tensor costs no copy.
        delta: step size before bias and softplus (batch, channel, time).
        A: (channel, d_state), real; negative for a stable system.
        B, C: (batch, d_state, time) or (batch, group, d_state, time).
        D: skip connection (channel).
        z: gate (batch, channel, time); the output is multiplied by silu(z).
        delta_bias: (channel), added to delta.
        delta_softplus: put softplus over delta + delta_bias.
        return_last_state: return (out, last_state) instead of out.
        lengths: (batch) valid frames of each sequence. Output beyond is zero and passes no
            gradient; whatever lies there, NaN included, has no effect.
        reverse: run from each sequence's own last frame to its first.
        initial_state: (batch, channel, d_state), the state before the first frame that is
            visited; zeros by default.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        out (batch, channel, time) in the dtype of u; with ``return_last_state`` also the state
        after the last frame that was visited (batch, channel, d_state), at least fp32.

    Raises:
        ValueError: an argument's shape or type does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "selective_scan_fn"
    if u.dim() != 3:
        raise ValueError(f"{op}: u has shape {tuple(u.shape)}, expected (batch, channel, time)")
    if not u.is_floating_point():
        raise ValueError(f"{op}: u has dtype {u.dtype}, expected a real floating-point type")
    batch, channels, time = u.shape
    check_tensor(op, "A", A, (channels, None), u.device)
    states = A.shape[1]
    check_tensor(op, "delta", delta, (batch, channels, time), u.device)
    for name, matrix in (("B", B), ("C", C)):
        _check_matrix(op, name, matrix, batch, channels, states, (time,), u.device)
    for name, tensor, shape in (
        ("D", D, (channels,)),
        ("z", z, (batch, channels, time)),
        ("delta_bias", delta_bias, (channels,)),
        ("initial_state", initial_state, (batch, channels, states)),
    ):
        check_tensor(op, name, tensor, shape, u.device, optional=True)
    lengths = check_lengths(op, lengths, batch, time, u.device)
    implementation = choose(
        *(op, u, IMPLEMENTATIONS, backend),
        tensors=(u, delta, A, B, C, D, z, delta_bias),
        initial_state=initial_state,
        return_last_state=return_last_state,
    )
    out, last_state = implementation.selective_scan(
        u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state
    )
    return (out, last_state) if return_last_state else out


@torch.no_grad()
def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    *,
    backend: str | None = None,
) -> Tensor:
    """Run one step of the selective scan, for decoding; no gradients.

    Args:
        state: (batch, channel, d_state), updated in place.
        x, dt, z: (batch, channel).
        A: (channel, d_state).
        B, C: (batch, d_state) or (batch, group, d_state).
        D, dt_bias: (channel).
        dt_softplus: put softplus over dt + dt_bias.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        (batch, channel) in the dtype of x.

    Raises:
        ValueError: an argument's shape does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "selective_state_update"
    if state.dim() != 3:
        raise ValueError(
            f"{op}: state has shape {tuple(state.shape)}, expected (batch, channel, d_state)"
        )
    batch, channels, states = state.shape
    for name, tensor, shape in (
        ("x", x, (batch, channels)),
        ("dt", dt, (batch, channels)),
        ("A", A, (channels, states)),
        ("D", D, (channels,)),
        ("z", z, (batch, channels)),
        ("dt_bias", dt_bias, (channels,)),
    ):
        optional = name in ("D", "z", "dt_bias")
        check_tensor(op, name, tensor, shape, state.device, optional)
    for name, matrix in (("B", B), ("C", C)):
        _check_matrix(op, name, matrix, batch, channels, states, (), state.device)
    return choose(op, x, IMPLEMENTATIONS, backend).selective_state_update(
        state, x, dt, A, B, C, D, z, dt_bias, dt_softplus
    )
