"""A convolution of each channel over time."""

import pytest
import torch
from sequences import in_pieces

from mambaasr.layers.depthwise import DepthwiseConv


@pytest.mark.parametrize("kernel, causal", [(5, False), (1, False), (4, True), (1, True)])
def test_it_is_torchs_convolution(kernel, causal):
    torch.manual_seed(0)
    conv = DepthwiseConv(6, kernel, causal)
    x = torch.randn(2, 9, 6, requires_grad=True)
    past = kernel - 1 if causal else kernel // 2
    padded = torch.nn.functional.pad(x.transpose(1, 2), (past, kernel - 1 - past))
    want = torch.nn.functional.conv1d(padded, conv.weight, conv.bias, groups=6).transpose(1, 2)
    got = conv(x)
    assert torch.allclose(got, want, atol=1e-6)
    weight = torch.randn_like(got)
    inputs = (x, conv.weight, conv.bias)
    grads = [torch.autograd.grad((y * weight).sum(), inputs) for y in (got, want)]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_pieces_give_what_the_whole_gives_and_gradients():
    torch.manual_seed(0)
    conv = DepthwiseConv(4, 4, causal=True)
    x = torch.randn(2, 10, 4, requires_grad=True)
    pieces, state = in_pieces(conv, x, [1, 5, 4])
    whole = conv(x)
    assert torch.allclose(pieces, whole, atol=1e-6)
    grads = [torch.autograd.grad(y.square().sum(), (x, conv.weight)) for y in (pieces, whole)]
    for a, b in zip(*grads, strict=True):
        assert torch.allclose(a, b, atol=1e-5)
