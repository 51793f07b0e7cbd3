"""The equations written out, one sequence, one frame and one channel vector at a time, in fp64.

Independent of every backend: no masks, no flips, no fused options.
"""

import torch
import torch.nn.functional as F


def _order(length, reverse):
    return range(length - 1, -1, -1) if reverse else range(length)


def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, lengths, reverse, initial_state):
    """Selective scan; the arguments of ``selective_scan_fn``."""
    batch, channels, time = u.shape
    if B.dim() == 3:
        B = B.unsqueeze(1)
    if C.dim() == 3:
        C = C.unsqueeze(1)
    group_b = torch.arange(channels) // (channels // B.shape[1])
    group_c = torch.arange(channels) // (channels // C.shape[1])
    outs, states = [], []
    for b in range(batch):
        length = time if lengths is None else int(lengths[b])
        h = torch.zeros_like(A) if initial_state is None else initial_state[b]
        frames = [torch.zeros(channels, dtype=u.dtype) for _ in range(time)]
        for t in _order(length, reverse):
            dt = delta[b, :, t]
            if delta_bias is not None:
                dt = dt + delta_bias
            if delta_softplus:
                dt = F.softplus(dt)
            h = torch.exp(dt[:, None] * A) * h
            h = h + (dt * u[b, :, t])[:, None] * B[b, group_b, :, t]
            y = (h * C[b, group_c, :, t]).sum(1)
            if D is not None:
                y = y + D * u[b, :, t]
            if z is not None:
                y = y * z[b, :, t] * torch.sigmoid(z[b, :, t])
            frames[t] = y
        outs.append(torch.stack(frames, 1) if time else torch.zeros_like(u[b]))
        states.append(h)
    return torch.stack(outs), torch.stack(states)


def conv(x, weight, bias, activation, lengths, reverse, initial_states):
    """Causal depthwise convolution; the arguments of ``causal_conv1d_fn``."""
    batch, channels, time = x.shape
    width = weight.shape[1]
    outs, finals = [], []
    for b in range(batch):
        length = time if lengths is None else int(lengths[b])
        if initial_states is None:
            window = [torch.zeros(channels, dtype=x.dtype)] * (width - 1)
        else:
            window = list(initial_states[b].unbind(1))
        frames = [torch.zeros(channels, dtype=x.dtype) for _ in range(time)]
        for t in _order(length, reverse):
            window.append(x[b, :, t])
            y = sum(w * v for w, v in zip(weight.unbind(1), window[-width:], strict=True))
            if bias is not None:
                y = y + bias
            frames[t] = F.silu(y) if activation else y
        outs.append(torch.stack(frames, 1) if time else torch.zeros_like(x[b]))
        final = window[len(window) - width + 1 :]
        finals.append(torch.stack(final, 1) if final else x.new_zeros(channels, 0))
    return torch.stack(outs), torch.stack(finals)


def close(actual, expected, tolerance=1e-5):
    """Whether every value is within ``tolerance`` of the largest expected one."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    assert torch.isfinite(actual).all()
    if expected.numel() == 0:
        return True
    scale = expected.abs().max().clamp(min=1e-30)
    return bool((actual.double() - expected.double()).abs().max() <= tolerance * scale)


def ssd(x, dt, A, B, C, D, z, dt_bias, softplus, limit, lengths, reverse, initial_states):
    """The scan of Mamba-2; the arguments of ``mamba_chunk_scan_combined``."""
    batch, time, heads, headdim = x.shape
    share = heads // B.shape[2]
    outs, states = [], []
    for b in range(batch):
        length = time if lengths is None else int(lengths[b])
        head_outs, head_states = [], []
        for head in range(heads):
            h = x.new_zeros(headdim, B.shape[3])
            if initial_states is not None:
                h = initial_states[b, head]
            frames = [x.new_zeros(headdim) for _ in range(time)]
            for t in _order(length, reverse):
                step = dt[b, t, head]
                if dt_bias is not None:
                    step = step + dt_bias[head]
                if softplus:
                    step = F.softplus(step)
                step = step.clamp(*limit)
                drive = torch.outer(x[b, t, head], B[b, t, head // share])
                h = torch.exp(step * A[head]) * h + step * drive
                y = h @ C[b, t, head // share]
                if D is not None:
                    y = y + D[head] * x[b, t, head]
                if z is not None:
                    y = y * z[b, t, head] * torch.sigmoid(z[b, t, head])
                frames[t] = y
            head_outs.append(torch.stack(frames) if time else x.new_zeros(0, headdim))
            head_states.append(h)
        outs.append(torch.stack(head_outs, 1) if heads else torch.zeros_like(x[b]))
        states.append(torch.stack(head_states))
    return torch.stack(outs), torch.stack(states)
