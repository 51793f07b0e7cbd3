"""Triton kernels of the causal depthwise convolution; imported only where triton is.

A program works on a tile of BT frames x BD channels of one sequence. s is a step, the frame that
is visited s-th; steps below zero are the initial state. States are contiguous (b, d, WIDTH - 1) in
fp32, gradients before SiLU (`dpre`) lie step by step as (b, s, d).
"""

import triton
import triton.language as tl


@triton.jit
def _place(lengths, time, channels, BT: tl.constexpr, BD: tl.constexpr):
    blocks, chunks = tl.cdiv(channels, BD), tl.maximum(tl.cdiv(time, BT), 1)
    pid = tl.program_id(0)
    k = (pid // blocks) % chunks
    b = (pid // (blocks * chunks)).to(tl.int64)
    d = ((pid % blocks) * BD + tl.arange(0, BD)).to(tl.int64)
    s = (k * BT + tl.arange(0, BT)).to(tl.int64)
    length = time
    if lengths is not None:
        length = tl.minimum(tl.maximum(tl.load(lengths + b), 0), time).to(tl.int32)
    return b, k, s, d, d < channels, length


@triton.jit
def _frame(s, length, REVERSE: tl.constexpr):
    if REVERSE:
        return tl.where(s < length, length - 1 - s, s)
    else:
        return s


@triton.jit
def _inputs(
    x, h0, b, s, d, on, length, channels, x_b, x_d, x_t,
    WIDTH: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Inputs at steps ``s`` of channels ``d``, which broadcast; zero behind the length."""
    t = _frame(s, length, REVERSE)
    mask = on & (s >= 0) & (s < length)
    value = tl.load(x + b * x_b + d * x_d + t * x_t, mask=mask, other=0.0).to(tl.float32)
    if h0 is not None:
        at = h0 + (b * channels + d) * (WIDTH - 1) + s + (WIDTH - 1)
        value += tl.load(at, mask=on & (s < 0), other=0.0)
    return value


@triton.jit
def _before_silu(
    x, weight, bias, h0, b, s, d, on, length, channels, x_b, x_d, x_t,
    WIDTH: tl.constexpr, REVERSE: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    y = tl.zeros([BT, BD], tl.float32)
    if bias is not None:
        y += tl.load(bias + d, mask=on, other=0.0)[None, :]
    for i in tl.static_range(WIDTH):
        tap = tl.load(weight + d * WIDTH + i, mask=on, other=0.0)
        y += tap[None, :] * _inputs(
            x, h0, b, (s + (i - (WIDTH - 1)))[:, None], d[None, :], on[None, :], length, channels,
            x_b, x_d, x_t, WIDTH, REVERSE,
        )  # fmt: skip
    return y


@triton.jit
def outputs(
    x, weight, bias, h0, lengths, out, last, time, channels,
    x_b, x_d, x_t, out_b, out_d, out_t,
    WIDTH: tl.constexpr, SILU: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b, k, s, d, on, length = _place(lengths, time, channels, BT, BD)
    y = _before_silu(
        x, weight, bias, h0, b, s, d, on, length, channels, x_b, x_d, x_t, WIDTH, REVERSE, BT, BD
    )
    if SILU:
        y *= tl.sigmoid(y)
    at = out + b * out_b + d[None, :] * out_d + _frame(s, length, REVERSE)[:, None] * out_t
    y = tl.where((s < length)[:, None], y, 0.0)
    tl.store(at, y, mask=(s < time)[:, None] & on[None, :])
    if k == 0:
        for i in tl.static_range(WIDTH - 1):
            step = length - (WIDTH - 1) + i + d * 0
            value = _inputs(x, h0, b, step, d, on, length, channels, x_b, x_d, x_t, WIDTH, REVERSE)
            tl.store(last + (b * channels + d) * (WIDTH - 1) + i, value, mask=on)


@triton.jit
def weight_gradients(
    x, weight, bias, h0, lengths, dout, dpre, dweight, dbias, time, channels,
    x_b, x_d, x_t, dout_b, dout_d, dout_t,
    WIDTH: tl.constexpr, SILU: tl.constexpr, REVERSE: tl.constexpr,
    BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """``dpre``, and a chunk's part of the gradients of weight (b, k, i, d) and bias (b, k, d)."""
    b, k, s, d, on, length = _place(lengths, time, channels, BT, BD)
    at = dout + b * dout_b + d[None, :] * dout_d + _frame(s, length, REVERSE)[:, None] * dout_t
    g = tl.load(at, mask=(s < length)[:, None] & on[None, :], other=0.0).to(tl.float32)
    if SILU:
        y = _before_silu(
            x, weight, bias, h0, b, s, d, on, length, channels, x_b, x_d, x_t,
            WIDTH, REVERSE, BT, BD,
        )  # fmt: skip
        open_ = tl.sigmoid(y)
        g *= open_ * (1.0 + y * (1.0 - open_))
    at = dpre + (b * time + s)[:, None] * channels + d[None, :]
    tl.store(at, g, mask=(s < time)[:, None] & on[None, :])
    chunk = b * tl.maximum(tl.cdiv(time, BT), 1) + k
    tl.store(dbias + chunk * channels + d, tl.sum(g, axis=0), mask=on)
    for i in tl.static_range(WIDTH):
        value = _inputs(
            x, h0, b, (s + (i - (WIDTH - 1)))[:, None], d[None, :], on[None, :], length, channels,
            x_b, x_d, x_t, WIDTH, REVERSE,
        )  # fmt: skip
        at = dweight + (chunk * WIDTH + i) * channels + d
        tl.store(at, tl.sum(g * value, axis=0), mask=on)


@triton.jit
def _input_gradients(dpre, weight, dlast, b, s, d, on, length, time, channels, WIDTH: tl.constexpr):
    """Gradients of the inputs at steps ``s`` of channels ``d``, which broadcast."""
    g = (s * 0 + d * 0).to(tl.float32)
    for i in tl.static_range(WIDTH):
        user = s + (WIDTH - 1 - i)  # the step whose output saw this input through tap i
        mask = on & (user >= 0) & (user < length)
        value = tl.load(dpre + (b * time + user) * channels + d, mask=mask, other=0.0)
        g += value * tl.load(weight + d * WIDTH + i, mask=on, other=0.0)
    if dlast is not None:
        place = s - length + (WIDTH - 1)
        mask = on & (place >= 0) & (s < length)
        g += tl.load(dlast + (b * channels + d) * (WIDTH - 1) + place, mask=mask, other=0.0)
    return g


@triton.jit
def input_gradients(
    dpre, weight, dlast, lengths, dx, dh0, time, channels, dx_b, dx_d, dx_t,
    WIDTH: tl.constexpr, REVERSE: tl.constexpr, BT: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    b, k, s, d, on, length = _place(lengths, time, channels, BT, BD)
    g = _input_gradients(
        dpre, weight, dlast, b, s[:, None], d[None, :], on[None, :], length, time, channels, WIDTH
    )
    g = tl.where((s < length)[:, None], g, 0.0)
    at = dx + b * dx_b + d[None, :] * dx_d + _frame(s, length, REVERSE)[:, None] * dx_t
    tl.store(at, g, mask=(s < time)[:, None] & on[None, :])
    if k == 0:
        for i in tl.static_range(WIDTH - 1):
            step = d * 0 + (i - (WIDTH - 1))
            row = _input_gradients(
                dpre, weight, dlast, b, step, d, on, length, time, channels, WIDTH
            )
            tl.store(dh0 + (b * channels + d) * (WIDTH - 1) + i, row, mask=on)
