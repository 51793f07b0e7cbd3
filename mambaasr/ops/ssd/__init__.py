"""State-space duality, the recurrence of Mamba-2: signature, checks and backend selection."""

from torch import Tensor

from mambaasr.ops.dispatch import check_lengths, check_tensor, choose
from mambaasr.ops.ssd import cpu, cuda, naive, products

IMPLEMENTATIONS = {"cpu": cpu, "cuda": cuda, "torch": products, "naive": naive}


def _check_limit(op, limit):
    try:
        low, high = (float(x) for x in limit)
    except (TypeError, ValueError):
        raise ValueError(f"{op}: dt_limit is {limit!r}, expected (lowest, highest)") from None
    if not low <= high:
        raise ValueError(f"{op}: dt_limit is {limit!r}; the lowest must not exceed the highest")
    return low, high


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor | None = None,
    z: Tensor | None = None,
    dt_bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    seq_idx: None = None,
    cu_seqlens: None = None,
    dt_softplus: bool = False,
    dt_limit: tuple[float, float] = (0.0, float("inf")),
    return_final_states: bool = False,
    return_varlen_states: bool = False,
    *,
    lengths: Tensor | None = None,
    reverse: bool = False,
    backend: str | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan of Mamba-2 (arXiv 2405.21060, sections 5 and 6), a drop-in for mamba_ssm's.

    Args:
        x: input (batch, time, head, headdim), fp32, bf16, fp16 or fp64, any strides.
        dt: step size before bias and softplus (batch, time, head).
        A: (head), real; negative for a stable system.
        B, C: (batch, time, group, d_state); a group serves head / group successive heads.
        chunk_size: frames that a kernel takes at once. It changes speed and rounding alone; the
            backends `cpu` and `torch` choose for themselves.
        D: skip connection (head) or (head, headdim).
        z: gate (batch, time, head, headdim); the output is multiplied by silu(z).
        dt_bias: (head), added to dt.
        initial_states: (batch, head, headdim, d_state), the state before the first frame that is
            visited; zeros by default.
        seq_idx, cu_seqlens, return_varlen_states: of mamba_ssm's signature, for sequences packed
            into one; not supported, must be None, None and False. Use ``lengths``.
        dt_softplus: put softplus over dt + dt_bias.
        dt_limit: lowest and highest step size; the others are clamped, after the softplus. As in
            mamba_ssm, negative step sizes become 0 unless this says otherwise.
        return_final_states: return (out, final_states) instead of out.
        lengths: (batch) valid frames of each sequence. Output beyond is zero and passes no
            gradient; whatever lies there, NaN included, has no effect.
        reverse: run from each sequence's own last frame to its first.
        backend: see :func:`mambaasr.ops.dispatch.choose`.

    Returns:
        out (batch, time, head, headdim) in the dtype of x; with ``return_final_states`` also the
        state after the last frame that was visited (batch, head, headdim, d_state), at least fp32.

    Raises:
        ValueError: an argument's shape, type or value does not fit; the message names it.
        RuntimeError: the named backend cannot run here.
    """
    op = "mamba_chunk_scan_combined"
    if x.dim() != 4:
        raise ValueError(
            f"{op}: x has shape {tuple(x.shape)}, expected (batch, time, head, headdim)"
        )
    if not x.is_floating_point():
        raise ValueError(f"{op}: x has dtype {x.dtype}, expected a real floating-point type")
    batch, time, heads, headdim = x.shape
    if seq_idx is not None or cu_seqlens is not None or return_varlen_states:
        raise ValueError(
            f"{op}: seq_idx, cu_seqlens and return_varlen_states are not supported; pad the "
            "sequences into a batch and give their lengths"
        )
    if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size <= 0:
        raise ValueError(f"{op}: chunk_size is {chunk_size!r}, expected a positive integer")
    check_tensor(op, "dt", dt, (batch, time, heads), x.device)
    check_tensor(op, "A", A, (heads,), x.device)
    check_tensor(op, "B", B, (batch, time, None, None), x.device)
    groups, states = B.shape[2:]
    if groups == 0 or heads % groups:
        raise ValueError(f"{op}: B has {groups} groups, which do not divide {heads} heads")
    if 0 in (headdim, states):
        raise ValueError(f"{op}: headdim is {headdim} and d_state {states}; both must be positive")
    check_tensor(op, "C", C, (batch, time, groups, states), x.device)
    wide = D is not None and D.dim() == 2
    for name, tensor, shape in (
        ("D", D, (heads, headdim) if wide else (heads,)),
        ("z", z, (batch, time, heads, headdim)),
        ("dt_bias", dt_bias, (heads,)),
        ("initial_states", initial_states, (batch, heads, headdim, states)),
    ):
        check_tensor(op, name, tensor, shape, x.device, optional=True)
    limit = _check_limit(op, dt_limit)
    lengths = check_lengths(op, lengths, batch, time, x.device)
    out, final_states = choose(op, x, IMPLEMENTATIONS, backend).chunk_scan_combined(
        x,
        dt,
        A,
        B,
        C,
        chunk_size,
        D,
        z,
        dt_bias,
        initial_states,
        dt_softplus,
        limit,
        lengths,
        reverse,
    )
    return (out, final_states) if return_final_states else out
