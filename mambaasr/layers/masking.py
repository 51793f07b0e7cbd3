"""Lengths and masks."""

import torch


def valid_mask(lengths, time):
    """(batch) lengths -> (batch, time) bool, true at valid frames."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def zero_padding(x, lengths):
    """Put zeros into x (batch, time, ...) beyond the lengths, whatever was there, NaN included.

    Returns x itself where it has no padding and that can be seen without stalling a GPU.
    """
    time = x.shape[1]
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if lengths.device.type == "cpu" and not traced:
        if len(lengths) == 0 or int(lengths.min()) >= time:
            return x
    mask = valid_mask(lengths.to(x.device), time)
    return x.masked_fill(~mask.reshape(*mask.shape, *(1,) * (x.dim() - 2)), 0.0)
