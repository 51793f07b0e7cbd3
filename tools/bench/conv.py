"""The causal depthwise convolution with bias and SiLU: ours and torch's."""

import torch
import torch.nn.functional as F

from bench.compare import Case

WIDTH = 4
SHAPES = ((1, 375, 512), (8, 500, 512), (16, 400, 1024), (1, 15000, 512))


def describe(shape):
    """Name a shape."""
    return f"({', '.join(map(str, shape))})"


def work(shape):
    """What a run costs, up to a factor."""
    return (shape[0] * shape[1] * shape[2],)


def warm_up(shape):
    """A shape for a first call."""
    return (1, 8, 16)


def conv_case(function, time_major, shape):
    """Make a case of function(x, weight, bias)."""
    batch, time, channels = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, time, generator=generator)
    if time_major:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    weight = torch.randn(channels, WIDTH, generator=generator)
    bias = torch.randn(channels, generator=generator)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    return Case(lambda: function(*leaves), leaves)


def ours(x, weight, bias):
    """Our op."""
    from mambaasr.ops import causal_conv1d_fn

    return causal_conv1d_fn(x, weight, bias, activation="silu", backend="cpu")


def torch_conv(x, weight, bias):
    """torch's convolution with one group a channel, as every Mamba in plain torch has it."""
    padded = F.conv1d(x, weight.unsqueeze(1), bias, padding=WIDTH - 1, groups=x.shape[1])
    return F.silu(padded[..., : x.shape[2]])


SIDES = {
    "mambaasr cpu": lambda shape: conv_case(ours, True, shape),
    "torch conv1d + silu": lambda shape: conv_case(torch_conv, False, shape),
    "torch conv1d + silu, time major": lambda shape: conv_case(torch_conv, True, shape),
}
