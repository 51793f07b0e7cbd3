"""Lengths and masks."""

import torch


def valid_mask(lengths, time):
    """(batch) lengths -> (batch, time) bool, true at valid frames."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def zero_padding(x, lengths):
    """Put zeros into x (batch, time, ...) beyond the lengths, whatever was there, NaN included."""
    mask = valid_mask(lengths.to(x.device), x.shape[1])
    return x.masked_fill(~mask.reshape(*mask.shape, *(1,) * (x.dim() - 2)), 0.0)
