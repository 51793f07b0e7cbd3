"""The convolutional gating MLP of Branchformer."""

import pytest
import torch
from sequences import in_pieces

from mambaasr.espnet_compat import import_quietly
from mambaasr.layers.cgmlp import ConvolutionalGatingMLP


def make(**options):
    torch.manual_seed(0)
    module = ConvolutionalGatingMLP(8, 12, **(dict(kernel_size=5) | options))
    with torch.no_grad():  # the open gate of the beginning hides the convolution
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return module


@pytest.mark.parametrize("options", [{}, dict(linear_after_conv=True), dict(causal=True)])
def test_padding_has_no_effect_and_gets_no_gradient(options):
    module = make(**options)
    lengths = torch.tensor([11, 4, 0])
    x = torch.randn(3, 11, 8, requires_grad=True)
    y = module(x, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = module(x[b : b + 1, :length], lengths[b : b + 1])
        assert torch.allclose(y[b, :length], alone[0], atol=1e-5)
        assert (y[b, length:] == 0).all()
    y.square().sum().backward()
    assert (x.grad[1, 4:] == 0).all() and (x.grad[0] != 0).all()
    assert all((p.grad != 0).any() for p in module.parameters())


@pytest.mark.parametrize("linear", [False, True])
def test_without_padding_it_is_espnets(linear):
    espnet = import_quietly("espnet2.asr.layers.cgmlp").ConvolutionalGatingMLP
    peer = espnet(8, 12, 5, 0.0, linear, "identity").eval()
    module = make(linear_after_conv=linear)
    names = {
        "linear_in": "channel_proj1.0",
        "norm": "csgu.norm",
        "conv": "csgu.conv",
        "linear_gate": "csgu.linear",
        "linear_out": "channel_proj2",
    }
    state = {}
    for key, value in module.state_dict().items():
        name, _, rest = key.partition(".")
        state[f"{names[name]}.{rest}"] = value
    peer.load_state_dict(state)
    x = torch.randn(2, 9, 8)
    want = peer(x, None)
    got = module(x, torch.tensor([9, 9]))
    # Its norm adds 1e-12 to the variance, torch's default is 1e-5.
    assert got.std() > 0.1 and torch.allclose(got, want, atol=1e-3)


def test_pieces_give_what_the_whole_gives():
    module = make(causal=True, kernel_size=4, linear_after_conv=True)
    x = torch.randn(2, 10, 8)
    pieces, state = in_pieces(module, x, [1, 5, 4])
    whole = module(x, torch.tensor([10, 10]))
    assert torch.allclose(pieces, whole, atol=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_the_gate_starts_open_whatever_espnet_does_to_the_weights(linear):
    module = make(linear_after_conv=linear)
    module.espnet_initialization_fn()
    gate = module.linear_gate(module.conv(torch.randn(1, 6, 6)))
    assert torch.allclose(gate, torch.ones(1, 6, 6), atol=1e-4)
