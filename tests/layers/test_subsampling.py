"""Input layers: exact lengths, whatever the batch."""

import copy

import pytest
import torch
import torch.nn.functional as F
from sequences import in_pieces

from mambaasr.layers import subsampling
from mambaasr.layers.subsampling import CONVOLUTIONS, CONVOLUTIONS_1D, make_input_layer

SUBSAMPLING = [*CONVOLUTIONS, *CONVOLUTIONS_1D]
NAMES = [*SUBSAMPLING, "linear", "none", None]


@pytest.mark.parametrize("name", NAMES)
def test_lengths_are_exact_and_padding_has_no_effect(name):
    torch.manual_seed(0)
    layer = make_input_layer(name, 80, 16, 0.0).eval()
    lengths = torch.tensor([150, 77, 31, 30])
    x = torch.randn(4, 150, 80)
    y, out = layer(x, lengths)
    assert torch.equal(out, layer.output_lengths(lengths))
    assert y.shape == (4, int(out.max()), 16)
    for b, length in enumerate(lengths.tolist()):
        alone, single = layer(x[b : b + 1, :length], lengths[b : b + 1])
        assert single[0] == out[b] == alone.shape[1]
        assert torch.allclose(y[b, : out[b]], alone[0], atol=1e-5)
        assert (y[b, out[b] :] == 0).all()


@pytest.mark.parametrize("name", SUBSAMPLING)
def test_minimum_is_the_fewest_frames_that_give_one(name):
    layer = make_input_layer(name, 80, 4, 0.0)
    lengths = torch.tensor([layer.minimum - 1, layer.minimum])
    assert layer.output_lengths(lengths).tolist() == [0, 1]
    assert layer(torch.randn(1, layer.minimum, 80), lengths[1:])[0].shape == (1, 1, 4)


def test_too_few_features_are_named():
    with pytest.raises(ValueError, match="5 features are too few"):
        make_input_layer("conv2d8", 5, 16, 0.0)


def plain(layer, x):
    """The layer as its formula has it, in fp64."""
    x = x.double()
    if not hasattr(layer, "out"):
        for conv in layer.conv:
            x = F.gelu(conv(x.transpose(1, 2))).transpose(1, 2)
        return x
    x = x.unsqueeze(1)  # (b, c, t, f)
    for conv in layer.conv:
        if conv.norm is None:
            x = F.conv2d(x, conv.weight, conv.bias, conv.stride).relu()
            continue
        y = F.leaky_relu(normed(conv, x), 0.01)
        x = y + normed(conv.shortcut, x) if conv.shortcut else y
    x = x.transpose(1, 2) if layer.channels_first else x.permute(0, 2, 3, 1)
    return F.linear(x.flatten(2), layer.out.weight, layer.out.bias)


def normed(conv, x):
    """Reflect the frequencies' ends, convolve, normalise over frequency and channel."""
    margin = conv.kernel_size[1] // 2
    left, right = x[..., 1 : margin + 1].flip(-1), x[..., -1 - margin : -1].flip(-1)
    x = F.conv2d(torch.cat([left, x, right], -1), conv.weight, conv.bias, conv.stride)
    x = x.permute(0, 2, 3, 1)
    mean, var = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, correction=0)
    x = (x - mean) / (var + 1e-5).sqrt() * conv.norm.weight + conv.norm.bias
    return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", SUBSAMPLING)
@pytest.mark.parametrize("frames", [150, 43])
def test_values_and_gradients_are_those_of_the_formula(name, frames):
    torch.manual_seed(0)
    layer, x = make_input_layer(name, 80, 16, 0.0), torch.randn(2, frames, 80)
    for parameter in layer.parameters():
        if parameter.dim() < 3:  # norms are not all ones
            torch.nn.init.uniform_(parameter, -1, 1)
    x = x.requires_grad_()
    got, _ = layer(x, torch.tensor([frames, frames]))
    same = copy.deepcopy(layer).double()
    want = plain(same, x)
    assert got.shape == want.shape and torch.allclose(got.double(), want, atol=1e-5)
    grad = torch.randn_like(got)
    pairs = zip(
        torch.autograd.grad(got, [x, *layer.parameters()], grad),
        torch.autograd.grad(want, [x, *same.parameters()], grad.double()),
        strict=True,
    )
    for a, b in pairs:
        assert torch.allclose(a.double(), b.double(), rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("name", SUBSAMPLING)
def test_pieces_without_gradients_give_what_the_whole_gives(name, monkeypatch):
    torch.manual_seed(0)
    layer, x = make_input_layer(name, 80, 16, 0.0), torch.randn(2, 303, 80)
    lengths = torch.tensor([303, 170])
    whole, _ = layer(x, lengths)
    monkeypatch.setattr(subsampling, "PIECE", 34)
    with torch.no_grad():
        pieces, _ = layer(x, lengths)
    assert torch.allclose(pieces, whole, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_pieces_of_any_size_give_what_the_whole_gives(name, size):
    torch.manual_seed(0)
    layer, x = make_input_layer(name, 80, 16, 0.0), torch.randn(2, 51, 80)
    whole, _ = layer(x, torch.tensor([51, 51]))
    pieces, state = in_pieces(layer, x, size)
    assert torch.allclose(pieces, whole, atol=1e-5)
