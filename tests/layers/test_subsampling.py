"""Input layers: exact lengths, whatever the batch."""

import pytest
import torch
import torch.nn.functional as F

from mambaasr.layers import subsampling
from mambaasr.layers.subsampling import CONVOLUTIONS, make_input_layer

NAMES = [*CONVOLUTIONS, "linear", "none", None]


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


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_minimum_is_the_fewest_frames_that_give_one(name):
    layer = make_input_layer(name, 80, 4, 0.0)
    lengths = torch.tensor([layer.minimum - 1, layer.minimum])
    assert layer.output_lengths(lengths).tolist() == [0, 1]
    assert layer(torch.randn(1, layer.minimum, 80), lengths[1:])[0].shape == (1, 1, 4)


def test_impossible_options_are_named():
    with pytest.raises(ValueError, match="input_layer is 'conv3d'; choose one of conv2d"):
        make_input_layer("conv3d", 80, 16, 0.0)
    with pytest.raises(ValueError, match="5 features are too few"):
        make_input_layer("conv2d8", 5, 16, 0.0)


def plain(layer, x):
    """The layer as its formula has it, in fp64."""
    for conv in layer.conv[::2]:
        x = x.unsqueeze(1) if x.dim() == 3 else x
        x = F.conv2d(x, conv.weight.double(), conv.bias.double(), conv.stride).relu()
    return F.linear(
        x.transpose(1, 2).flatten(2), layer.out.weight.double(), layer.out.bias.double()
    )


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("frames", [150, 43])
def test_values_and_gradients_are_those_of_the_formula(name, frames):
    torch.manual_seed(0)
    layer, x = make_input_layer(name, 80, 16, 0.0), torch.randn(2, frames, 80)
    x = x.requires_grad_()
    got, _ = layer(x, torch.tensor([frames, frames]))
    want = plain(layer, x.double())
    assert got.shape == want.shape and torch.allclose(got.double(), want, atol=1e-5)
    tensors, grad = [x, *layer.parameters()], torch.randn_like(got)
    pairs = zip(
        torch.autograd.grad(got, tensors, grad),
        torch.autograd.grad(want, tensors, grad.double()),
        strict=True,
    )
    for a, b in pairs:
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_pieces_without_gradients_give_what_the_whole_gives(name, monkeypatch):
    torch.manual_seed(0)
    layer, x = make_input_layer(name, 80, 16, 0.0), torch.randn(2, 303, 80)
    lengths = torch.tensor([303, 170])
    whole, _ = layer(x, lengths)
    monkeypatch.setattr(subsampling, "PIECE", 34)
    with torch.no_grad():
        pieces, _ = layer(x, lengths)
    assert torch.allclose(pieces, whole, atol=1e-6)
