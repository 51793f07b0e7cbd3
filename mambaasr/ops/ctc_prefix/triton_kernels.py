"""Triton kernels of the CTC prefix scores; imported only where triton is.

Layouts as in state.py, all contiguous. phi(t - 1) are the paths after which a label may follow at
frame t, see naive.py.
"""

import triton
import triton.language as tl

LOG_ZERO = tl.constexpr(-1e10)
DEAD = tl.constexpr(-5e9)


@triton.jit
def _logaddexp(a, b):
    y = tl.exp(tl.minimum(a, b) - tl.maximum(a, b))
    # log(1 + y) = 2 artanh(s), exact where y is small too.
    s = y / (y + 2.0)
    w = s * s
    p = 0.28011993385367384 * w + 0.28001804073364617
    p = p * w + 0.4002152730311913
    p = p * w + 0.6666641628474442
    return tl.maximum(a, b) + (2.0 * s + s * w * p)


@triton.jit
def scores(
    log_probs, base, lengths, forward, shift, last, candidates, out,
    hypotheses, tokens, count, time,
    BLANK: tl.constexpr, BS: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """A program has BS candidates of a row: the logarithm of a sum over frames, in float64."""
    blocks = tl.cdiv(count, BS)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    u = row // hypotheses
    i = (tl.program_id(0) % blocks) * BS + tl.arange(0, BS)
    c = i.to(tl.int64)
    if candidates is not None:
        c = tl.load(candidates + row * count + i, mask=i < count, other=BLANK)
    c = tl.minimum(tl.maximum(c, 0), tokens - 1)
    final = tl.load(last + row)
    length = tl.load(lengths + u)
    n = forward + row * 2 * time
    most = tl.full([BS], -1e30, tl.float64)
    total = tl.full([BS], 0.0, tl.float32)
    first = length * 0
    while first < length:
        t = first + tl.arange(0, BT)
        before = (t > 0) & (t <= length)
        ends = tl.load(n + time + t - 1, mask=before, other=LOG_ZERO)
        both = _logaddexp(tl.load(n + t - 1, mask=before, other=LOG_ZERO), ends)
        empty = (t == 0) & (final < 0)
        ends, both = tl.where(empty, 0.0, ends), tl.where(empty, 0.0, both)
        start = tl.load(base + u * time + first)
        moved = tl.load(base + u * time + t, mask=t < length, other=start) - start
        phi = tl.where((c == final)[:, None], ends[None, :], both[None, :])
        x = tl.load(
            log_probs + (u * tokens + c)[:, None] * time + t[None, :],
            mask=(t < length)[None, :],
            other=0.0,
        )
        paths = phi + moved.to(tl.float32)[None, :] + x
        paths = tl.where((t < length)[None, :], paths, 3 * LOG_ZERO)
        top = tl.max(paths, 1)
        part = tl.sum(tl.exp(paths - top[:, None]), 1)
        here = start + top.to(tl.float64)
        greatest = tl.maximum(most, here)
        total = total * tl.exp((most - greatest).to(tl.float32))
        total += part * tl.exp((here - greatest).to(tl.float32))
        most = greatest
        first += BT
    score = most + tl.log(total).to(tl.float64) + tl.load(shift + row)
    score = tl.where((score < DEAD) | (c == BLANK) | (length == 0), LOG_ZERO, score)
    tl.store(out + row * count + i, score, mask=i < count)


@triton.jit
def advance(
    log_probs, lengths, forward, shift, last, parents, labels, out, out_shift, out_last,
    hypotheses, rows, tokens, time, all_rows,
    BLANK: tl.constexpr, BR: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """A program has BR rows, and walks over the frames."""
    row = (tl.program_id(0) * BR + tl.arange(0, BR)).to(tl.int64)
    on = row < all_rows
    u = tl.where(on, row // rows, 0)
    parent = tl.load(parents + row, mask=on, other=0)
    parent = u * hypotheses + tl.minimum(tl.maximum(parent, 0), hypotheses - 1)
    label = tl.load(labels + row, mask=on, other=BLANK)
    alive = (label >= 0) & (label < tokens) & (label != BLANK)
    label = tl.where(alive, label, BLANK)
    final = tl.load(last + parent)
    length = tl.where(on, tl.load(lengths + u), 0)
    n = forward + parent * 2 * time
    x = log_probs + (u * tokens + label) * time
    blank = log_probs + (u * tokens + BLANK) * time

    # The most probable end of the parent becomes 0.
    best = tl.full([BR], LOG_ZERO, tl.float32)
    longest = tl.max(length, 0)
    first = longest * 0
    while first < longest:
        t = first + tl.arange(0, BT)[None, :]
        mask = t < length[:, None]
        values = tl.load(n[:, None] + t, mask=mask, other=LOG_ZERO)
        values = tl.maximum(values, tl.load(n[:, None] + time + t, mask=mask, other=LOG_ZERO))
        best = tl.maximum(best, tl.max(values, 1))
        first += BT
    best = tl.where((final < 0) | (best < DEAD), 0.0, best)

    to = out + row * 2 * time
    phi = tl.where(final < 0, 0.0, LOG_ZERO) + tl.zeros([BR], tl.float32)
    label_end = tl.full([BR], LOG_ZERO, tl.float32)
    blank_end = tl.full([BR], LOG_ZERO, tl.float32)
    t = longest * 0
    while t < time:
        mask = t < length
        blanks = blank_end
        blank_end = _logaddexp(blanks, label_end) + tl.load(blank + t, mask=mask, other=0.0)
        label_end = _logaddexp(label_end, phi) + tl.load(x + t, mask=mask, other=0.0)
        blank_end, label_end = tl.maximum(blank_end, LOG_ZERO), tl.maximum(label_end, LOG_ZERO)
        ends = tl.load(n + time + t, mask=mask, other=LOG_ZERO)
        both = _logaddexp(tl.load(n + t, mask=mask, other=LOG_ZERO), ends)
        phi = tl.where(label == final, ends, both) - best
        keep = mask & alive
        tl.store(to + t, tl.where(keep, label_end, LOG_ZERO), mask=on)
        tl.store(to + time + t, tl.where(keep, blank_end, LOG_ZERO), mask=on)
        t += 1
    moved = tl.load(shift + parent) + best.to(tl.float64)
    tl.store(out_shift + row, tl.where(alive, moved, 0.0), mask=on)
    tl.store(out_last + row, label, mask=on)
