"""Causal depthwise convolution in plain torch: the truth for every other backend."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mambaasr.ops.lengths import keep, take, valid_mask
from mambaasr.ops.lengths import reverse as reverse_frames


def unavailable(tensor: Tensor) -> str | None:
    """Pure torch runs anywhere."""
    return None


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    lengths: Tensor | None,
    reverse: bool,
    initial_states: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See :func:`mambaasr.ops.causal_conv1d_fn`; arguments are checked there.

    Returns:
        out (b, d, t), final states (b, d, width - 1).
    """
    batch, channels, time = x.shape
    width = weight.shape[1]
    if lengths is None:
        lengths = torch.full((batch,), time, device=x.device)
    mask = valid_mask(lengths, time)
    x = keep(x, mask, time=-1)
    if reverse:
        x = reverse_frames(x, lengths, time=-1)
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
    final = take(inputs, index, time=-1)
    out = keep(out, mask, time=-1)
    return (reverse_frames(out, lengths, time=-1) if reverse else out), final


def causal_conv1d_update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None
) -> Tensor:
    """Run one step; see :func:`mambaasr.ops.causal_conv1d_update`."""
    width = weight.shape[1]
    window = torch.cat([conv_state, x.to(conv_state.dtype).unsqueeze(-1)], dim=-1)
    conv_state.copy_(window[:, :, 1:])
    out = (window[:, :, -width:] * weight.to(window.dtype)).sum(-1)
    if bias is not None:
        out = out + bias.to(window.dtype)
    if activation is not None:
        out = F.silu(out)
    return out.to(x.dtype)
