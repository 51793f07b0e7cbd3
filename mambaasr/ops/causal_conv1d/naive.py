"""Causal depthwise convolution in plain torch: the truth for every other backend."""

import torch
import torch.nn.functional as F


def unavailable(tensor):
    """Pure torch runs anywhere."""
    return None


def _flip(x, lengths):
    """Reverse the first ``lengths[b]`` frames of x (b, d, t); the rest stays where it is."""
    time = torch.arange(x.shape[2], device=x.device)
    index = torch.where(time < lengths[:, None], lengths[:, None] - 1 - time, time)
    return x.gather(2, index.unsqueeze(1).expand_as(x))


def causal_conv1d(x, weight, bias, activation, lengths, reverse, initial_states):
    """See :func:`mambaasr.ops.causal_conv1d_fn`; arguments are checked there.

    Returns:
        out (b, d, t), final states (b, d, width - 1).
    """
    batch, channels, time = x.shape
    width = weight.shape[1]
    if lengths is None:
        lengths = torch.full((batch,), time, device=x.device)
    mask = (torch.arange(time, device=x.device) < lengths[:, None]).unsqueeze(1)  # (b, 1, t)
    zero = torch.zeros((), dtype=x.dtype, device=x.device)
    x = torch.where(mask, x, zero)
    if reverse:
        x = _flip(x, lengths)
    if initial_states is None:
        initial_states = x.new_zeros(batch, channels, width - 1)
    inputs = torch.cat([initial_states.to(x.dtype), x], dim=2)  # (b, d, width - 1 + t)
    if time == 0:
        out = x  # conv1d refuses an input shorter than its kernel
    else:
        out = F.conv1d(
            inputs,
            weight.to(x.dtype).unsqueeze(1),
            None if bias is None else bias.to(x.dtype),
            groups=channels,
        )
    if activation is not None:
        out = F.silu(out)
    # The last width - 1 inputs of each sequence end at its own last frame.
    index = lengths[:, None] + torch.arange(width - 1, device=x.device)
    final = inputs.gather(2, index.unsqueeze(1).expand(batch, channels, width - 1))
    out = torch.where(mask, out, zero)
    return (_flip(out, lengths) if reverse else out), final


def causal_conv1d_update(x, conv_state, weight, bias, activation):
    """One step; see :func:`mambaasr.ops.causal_conv1d_update`."""
    width = weight.shape[1]
    window = torch.cat([conv_state, x.to(conv_state.dtype).unsqueeze(-1)], dim=-1)
    conv_state.copy_(window[:, :, 1:])
    out = (window[:, :, -width:] * weight.to(window.dtype)).sum(-1)
    if bias is not None:
        out = out + bias.to(window.dtype)
    if activation is not None:
        out = F.silu(out)
    return out.to(x.dtype)
