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
