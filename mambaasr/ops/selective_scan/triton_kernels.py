"""Triton kernels of the selective scan; imported only where triton is.

A sequence is cut into chunks of BT frames, which run in parallel. A program works on a tile of BT
frames x BD channels of one sequence and group, and loops over the states. Symbols as in naive.py;
k chunk, s step, the frame that is visited s-th. Three kernels a pass:

    chunk_state      what a chunk adds to the state behind it, from a state of zero
    state_passing    h_k = exp(A sum dt_k) h_{k-1} + added_k over the chunks, the cheap part
    chunk_scan       every step of a chunk, from the state that `state_passing` left before it

and in the backward pass `chunk_scan_bwd_dstates`, `state_passing` from the last chunk to the first,
`chunk_scan_bwd`. The names are those of mamba_ssm's kernels for Mamba-2.
A is given as (n, d) in units of log2, so that exp2 serves; states as (b, k, n, d). Frames at
padding are never read (dt = 0 leaves the state as it is) and get zeros.
"""

import triton
import triton.language as tl


@triton.jit
def _compose(a1, x1, a2, x2):
    return a2 * a1, a2 * x1 + x2


@triton.jit
def _softplus(x):
    """max(x, 0) + log1p(e) with e = exp(-|x|), the latter as 2 atanh(e / (2 + e)).

    Triton has no log1p, and log(1 + e) is wrong where e is small.
    """
    e = tl.exp(-tl.abs(x))
    z = e / (2.0 + e)
    w = z * z
    series = 1.0 / 13 + w * (1.0 / 15)
    series = 1.0 / 11 + w * series
    series = 1.0 / 9 + w * series
    series = 1.0 / 7 + w * series
    series = 1.0 / 5 + w * series
    series = 1.0 / 3 + w * series
    return tl.maximum(x, 0.0) + 2.0 * z * (1.0 + w * series)


@triton.jit
def _place(lengths, time, channels, groups, BT: tl.constexpr, BD: tl.constexpr):
    """The tile of this program: batch, group, chunk, block, steps, channels, their mask, length."""
    per_group = channels // groups
    blocks = tl.cdiv(per_group, BD)
    chunks = tl.cdiv(time, BT)
    pid = tl.program_id(0)
    j = pid % (blocks * groups)
    k = (pid // (blocks * groups)) % chunks
    b = (pid // (blocks * groups * chunks)).to(tl.int64)
    group = j // blocks
    inside = (j % blocks) * BD + tl.arange(0, BD)
    d = (group * per_group + inside).to(tl.int64)
    s = (k * BT + tl.arange(0, BT)).to(tl.int64)
    length = time
    if lengths is not None:
        # The host does not read them back to check: nothing outside the tensors is touched.
        length = tl.minimum(tl.maximum(tl.load(lengths + b), 0), time).to(tl.int32)
    return b, group, k, j, s, d, inside < per_group, length


@triton.jit
def _frame(s, length, REVERSE: tl.constexpr):
    if REVERSE:
        return tl.where(s < length, length - 1 - s, s)
    else:
        return s


@triton.jit
def _tile(ptr, b, d, t, sb, sd, st, mask):
    x = tl.load(ptr + b * sb + d[None, :] * sd + t[:, None] * st, mask=mask, other=0.0)
    return x.to(tl.float32)


@triton.jit
def _steps(delta, bias, b, d, t, sb, sd, st, mask, on, SOFTPLUS: tl.constexpr):
    """Step sizes of a tile, and their slope by delta; zero where the mask is."""
    raw = _tile(delta, b, d, t, sb, sd, st, mask)
    if bias is not None:
        raw += tl.load(bias + d, mask=on, other=0.0)[None, :]
    slope = tl.full(raw.shape, 1.0, tl.float32)
    if SOFTPLUS:
        slope = tl.sigmoid(raw)
        raw = _softplus(raw)
    return tl.where(mask, raw, 0.0), tl.where(mask, slope, 0.0)


@triton.jit
def chunk_state(
    u, delta, B, A, bias, lengths, added, sums, time, channels, groups,
    u_b, u_d, u_t, delta_b, delta_d, delta_t, B_b, B_g, B_n, B_t,
    STATES: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b, group, k, j, s, d, on, length = _place(lengths, time, channels, groups, BT, BD)
    valid = s < length
    mask = valid[:, None] & on[None, :]
    t = _frame(s, length, REVERSE)
    dt, _ = _steps(delta, bias, b, d, t, delta_b, delta_d, delta_t, mask, on, SOFTPLUS)
    drive = dt * _tile(u, b, d, t, u_b, u_d, u_t, mask)
    # Time from each step to the chunk's end: a sum of the later steps, as total minus earlier
    # ones would lose the small differences that count.
    later = (s + 1 < length) & (s + 1 < (k + 1) * BT)
    next_dt, _ = _steps(
        delta, bias, b, d, _frame(s + 1, length, REVERSE), delta_b, delta_d, delta_t,
        later[:, None] & on[None, :], on, SOFTPLUS,
    )  # fmt: skip
    rest = tl.cumsum(next_dt, axis=0, reverse=True)
    chunk = b * tl.cdiv(time, BT) + k
    tl.store(sums + chunk * channels + d, tl.sum(dt, axis=0), mask=on)
    for n in range(STATES):
        A_n = tl.load(A + n * channels + d, mask=on, other=0.0)
        B_n_ = tl.load(B + b * B_b + group * B_g + n * B_n + t * B_t, mask=valid, other=0.0)
        x = tl.exp2(rest * A_n[None, :]) * drive * B_n_.to(tl.float32)[:, None]
        tl.store(added + (chunk * STATES + n) * channels + d, tl.sum(x, axis=0), mask=on)


@triton.jit
def state_passing(
    added, sums, A, first, before, last, chunks, channels, size,
    BACKWARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """From ``first`` over all chunks to ``last``; ``before`` gets what each chunk starts from.

    A program takes BLOCK of the ``size`` = states x channels of one sequence.
    """
    blocks = tl.cdiv(size, BLOCK)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    m = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    on = m < size
    d = m % channels
    A_m = tl.load(A + m, mask=on, other=0.0)
    h = tl.zeros([BLOCK], tl.float32)
    if first is not None:
        h += tl.load(first + b * size + m, mask=on, other=0.0)
    i = 0
    while i < chunks:
        k = i
        if BACKWARD:
            k = chunks - 1 - i
        chunk = b * chunks + k
        tl.store(before + chunk * size + m, h, mask=on)
        total = tl.load(sums + chunk * channels + d, mask=on, other=0.0)
        h = tl.exp2(total * A_m) * h + tl.load(added + chunk * size + m, mask=on, other=0.0)
        i += 1
    tl.store(last + b * size + m, h, mask=on)


@triton.jit
def chunk_scan(
    u, delta, B, C, z, A, D, bias, lengths, before, out, time, channels, groups,
    u_b, u_d, u_t, delta_b, delta_d, delta_t, B_b, B_g, B_n, B_t, C_b, C_g, C_n, C_t,
    z_b, z_d, z_t, out_b, out_d, out_t,
    STATES: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b, group, k, j, s, d, on, length = _place(lengths, time, channels, groups, BT, BD)
    valid = s < length
    mask = valid[:, None] & on[None, :]
    t = _frame(s, length, REVERSE)
    first = (s == k * BT)[:, None]
    dt, _ = _steps(delta, bias, b, d, t, delta_b, delta_d, delta_t, mask, on, SOFTPLUS)
    x = _tile(u, b, d, t, u_b, u_d, u_t, mask)
    y = tl.zeros([BT, BD], tl.float32)
    if D is not None:
        y += x * tl.load(D + d, mask=on, other=0.0)[None, :]
    drive = dt * x
    chunk = b * tl.cdiv(time, BT) + k
    for n in range(STATES):
        A_n = tl.load(A + n * channels + d, mask=on, other=0.0)
        h0 = tl.load(before + (chunk * STATES + n) * channels + d, mask=on, other=0.0)
        B_n_ = tl.load(B + b * B_b + group * B_g + n * B_n + t * B_t, mask=valid, other=0.0)
        C_n_ = tl.load(C + b * C_b + group * C_g + n * C_n + t * C_t, mask=valid, other=0.0)
        a = tl.exp2(dt * A_n[None, :])
        add = drive * B_n_.to(tl.float32)[:, None] + tl.where(first, a * h0[None, :], 0.0)
        _, h = tl.associative_scan((a, add), 0, _compose)
        y += h * C_n_.to(tl.float32)[:, None]
    if z is not None:
        gate = _tile(z, b, d, t, z_b, z_d, z_t, mask)
        y = y * gate * tl.sigmoid(gate)
    tl.store(
        out + b * out_b + d[None, :] * out_d + t[:, None] * out_t,
        tl.where(mask, y, 0.0),
        mask=(s < time)[:, None] & on[None, :],
    )


@triton.jit
def chunk_scan_bwd_dstates(
    delta, C, z, dout, A, bias, lengths, added, time, channels, groups,
    delta_b, delta_d, delta_t, C_b, C_g, C_n, C_t, z_b, z_d, z_t, dout_b, dout_d, dout_t,
    STATES: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """What a chunk's outputs add to the gradient of the state before it."""
    b, group, k, j, s, d, on, length = _place(lengths, time, channels, groups, BT, BD)
    valid = s < length
    mask = valid[:, None] & on[None, :]
    t = _frame(s, length, REVERSE)
    dt, _ = _steps(delta, bias, b, d, t, delta_b, delta_d, delta_t, mask, on, SOFTPLUS)
    dy = _tile(dout, b, d, t, dout_b, dout_d, dout_t, mask)
    if z is not None:
        gate = _tile(z, b, d, t, z_b, z_d, z_t, mask)
        dy *= gate * tl.sigmoid(gate)
    since = tl.cumsum(dt, axis=0)
    chunk = b * tl.cdiv(time, BT) + k
    for n in range(STATES):
        A_n = tl.load(A + n * channels + d, mask=on, other=0.0)
        C_n_ = tl.load(C + b * C_b + group * C_g + n * C_n + t * C_t, mask=valid, other=0.0)
        x = tl.exp2(since * A_n[None, :]) * dy * C_n_.to(tl.float32)[:, None]
        tl.store(added + (chunk * STATES + n) * channels + d, tl.sum(x, axis=0), mask=on)


@triton.jit
def chunk_scan_bwd(
    u, delta, B, C, z, dout, A, D, bias, lengths, before, after,
    du, ddelta, dz, dA, dB, dC, dD, dbias, time, channels, groups,
    u_b, u_d, u_t, delta_b, delta_d, delta_t, B_b, B_g, B_n, B_t, C_b, C_g, C_n, C_t,
    z_b, z_d, z_t, dout_b, dout_d, dout_t,
    du_b, du_d, du_t, ddelta_b, ddelta_d, ddelta_t, dz_b, dz_d, dz_t,
    STATES: tl.constexpr, SOFTPLUS: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Every gradient of a chunk, from the state before it and the gradient of the state after it.

    With w_s = a_s h_{s-1} and v_s = a_{s+1} g_{s+1}, g the gradient of h:

        w_s = a_s (w_{s-1} + x_{s-1})           h_s = w_s + x_s
        v_s = a_{s+1} (v_{s+1} + c_{s+1})       g_s = v_s + c_s         c_s = C_s dy_s

    so that dA and ddelta need no difference h_s - x_s, which loses all digits at large steps.
    """
    b, group, k, j, s, d, on, length = _place(lengths, time, channels, groups, BT, BD)
    valid = s < length
    mask = valid[:, None] & on[None, :]
    t = _frame(s, length, REVERSE)
    first, final = (s == k * BT)[:, None], (s == (k + 1) * BT - 1)[:, None]
    dt, slope = _steps(delta, bias, b, d, t, delta_b, delta_d, delta_t, mask, on, SOFTPLUS)
    x = _tile(u, b, d, t, u_b, u_d, u_t, mask)
    dy = _tile(dout, b, d, t, dout_b, dout_d, dout_t, mask)
    gate_slope = tl.zeros([BT, BD], tl.float32)
    if z is not None:
        gate = _tile(z, b, d, t, z_b, z_d, z_t, mask)
        open_ = tl.sigmoid(gate)
        gate_slope += dy * open_ * (1.0 + gate * (1.0 - open_))
        dy *= gate * open_

    # The neighbours of each step within the chunk.
    earlier = valid & (s > k * BT)
    later = (s + 1 < length) & (s + 1 < (k + 1) * BT)
    earlier_mask, later_mask = earlier[:, None] & on[None, :], later[:, None] & on[None, :]
    t_prev = tl.where(earlier, _frame(s - 1, length, REVERSE), 0)
    t_next = tl.where(later, _frame(s + 1, length, REVERSE), 0)
    prev_drive, _ = _steps(
        delta, bias, b, d, t_prev, delta_b, delta_d, delta_t, earlier_mask, on, SOFTPLUS
    )
    prev_drive *= _tile(u, b, d, t_prev, u_b, u_d, u_t, earlier_mask)
    next_dt, _ = _steps(
        delta, bias, b, d, t_next, delta_b, delta_d, delta_t, later_mask, on, SOFTPLUS
    )
    next_dy = _tile(dout, b, d, t_next, dout_b, dout_d, dout_t, later_mask)
    if z is not None:
        next_gate = _tile(z, b, d, t_next, z_b, z_d, z_t, later_mask)
        next_dy *= next_gate * tl.sigmoid(next_gate)

    drive = dt * x
    y = tl.zeros([BT, BD], tl.float32)
    d_dt = tl.zeros([BT, BD], tl.float32)
    d_drive = tl.zeros([BT, BD], tl.float32)
    chunk = b * tl.cdiv(time, BT) + k
    part = b * groups * tl.cdiv(channels // groups, BD) + j
    for n in range(STATES):
        state = (chunk * STATES + n) * channels + d
        A_n = tl.load(A + n * channels + d, mask=on, other=0.0)[None, :]
        h0 = tl.load(before + state, mask=on, other=0.0)[None, :]
        g1 = tl.load(after + state, mask=on, other=0.0)[None, :]
        B_row = B + b * B_b + group * B_g + n * B_n
        C_row = C + b * C_b + group * C_g + n * C_n
        B_s = tl.load(B_row + t * B_t, mask=valid, other=0.0).to(tl.float32)[:, None]
        C_s = tl.load(C_row + t * C_t, mask=valid, other=0.0).to(tl.float32)[:, None]
        B_prev = tl.load(B_row + t_prev * B_t, mask=earlier, other=0.0).to(tl.float32)[:, None]
        C_next = tl.load(C_row + t_next * C_t, mask=later, other=0.0).to(tl.float32)[:, None]

        a = tl.exp2(dt * A_n)
        _, w = tl.associative_scan((a, a * tl.where(first, h0, prev_drive * B_prev)), 0, _compose)
        h = w + drive * B_s
        y += h * C_s
        # Behind the last step of the chunk comes what later chunks hand back, decay included.
        a_next = tl.exp2(next_dt * A_n)
        c_next = tl.where(final, g1, a_next * next_dy * C_next)
        _, v = tl.associative_scan((a_next, c_next), 0, _compose, reverse=True)
        g = v + dy * C_s

        q = g * w
        d_dt += q * (A_n * 0.6931471805599453)
        d_drive += g * B_s
        tl.store(dA + state, tl.sum(q * dt, axis=0), mask=on)
        row = (part * STATES + n) * time + t
        tl.store(dB + row, tl.sum(g * drive, axis=1), mask=s < time)
        tl.store(dC + row, tl.sum(dy * h, axis=1), mask=s < time)

    d_raw = (d_dt + d_drive * x) * slope
    dx = d_drive * dt
    if D is not None:
        D_d = tl.load(D + d, mask=on, other=0.0)[None, :]
        dx += dy * D_d
        y += x * D_d
    inside = (s < time)[:, None] & on[None, :]
    tl.store(du + b * du_b + d[None, :] * du_d + t[:, None] * du_t, dx, mask=inside)
    tl.store(
        ddelta + b * ddelta_b + d[None, :] * ddelta_d + t[:, None] * ddelta_t, d_raw, mask=inside
    )
    if z is not None:
        at = dz + b * dz_b + d[None, :] * dz_d + t[:, None] * dz_t
        tl.store(at, gate_slope * y, mask=inside)
    tl.store(dD + chunk * channels + d, tl.sum(dy * x, axis=0), mask=on)
    tl.store(dbias + chunk * channels + d, tl.sum(d_raw, axis=0), mask=on)


@triton.jit
def state_update(
    state, x, dt, A, B, C, D, z, bias, out, channels, groups, states,
    state_b, state_d, state_n, x_b, x_d, dt_b, dt_d, B_b, B_g, B_n, C_b, C_g, C_n, z_b, z_d,
    SOFTPLUS: tl.constexpr, BD: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """One frame, the state in place. A program takes BD channels with all their states."""
    blocks = tl.cdiv(channels, BD)
    b = (tl.program_id(0) // blocks).to(tl.int64)
    d = ((tl.program_id(0) % blocks) * BD + tl.arange(0, BD)).to(tl.int64)
    n = tl.arange(0, BN)
    on = d < channels
    both = on[:, None] & (n < states)[None, :]
    group = d // (channels // groups)
    step_size = tl.load(dt + b * dt_b + d * dt_d, mask=on, other=0.0).to(tl.float32)
    if bias is not None:
        step_size += tl.load(bias + d, mask=on, other=0.0)
    if SOFTPLUS:
        step_size = _softplus(step_size)
    u = tl.load(x + b * x_b + d * x_d, mask=on, other=0.0).to(tl.float32)
    A_dn = tl.load(A + n[None, :] * channels + d[:, None], mask=both, other=0.0)
    at = group[:, None] * B_g + n[None, :] * B_n
    B_dn = tl.load(B + b * B_b + at, mask=both, other=0.0).to(tl.float32)
    at = group[:, None] * C_g + n[None, :] * C_n
    C_dn = tl.load(C + b * C_b + at, mask=both, other=0.0).to(tl.float32)
    at = state + b * state_b + d[:, None] * state_d + n[None, :] * state_n
    h = tl.load(at, mask=both, other=0.0).to(tl.float32)
    h = tl.exp2(step_size[:, None] * A_dn) * h + (step_size * u)[:, None] * B_dn
    tl.store(at, h, mask=both)
    y = tl.sum(h * C_dn, axis=1)
    if D is not None:
        y += u * tl.load(D + d, mask=on, other=0.0)
    if z is not None:
        gate = tl.load(z + b * z_b + d * z_d, mask=on, other=0.0).to(tl.float32)
        y *= gate * tl.sigmoid(gate)
    tl.store(out + b * channels + d, y, mask=on)
