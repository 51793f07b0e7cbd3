"""The block around a mixer: its formula, and pieces."""

import pytest
import torch
from sequences import in_pieces

from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.mixer_conf import MixerConf

LENGTHS = torch.tensor([9, 4])
PARTS = [
    dict(),
    dict(hidden=12),
    dict(hidden=12, macaron=True, kernel_size=5),
    dict(kernel_size=4, norm="rms_norm"),
]


def make(direction="uni", **parts):
    torch.manual_seed(0)
    mixer = MixerConf(direction=direction).make(8)
    options = dict(causal=direction == "uni", dropout_rate=0.0)
    block = EncoderBlock(8, mixer, **(options | parts))
    for name, parameter in block.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return block


def formula(block, x, lengths, scale=1.0):
    half = 0.5 * scale if hasattr(block, "norm_macaron") else scale
    if hasattr(block, "norm_macaron"):
        x = x + half * block.feed_forward_macaron(block.norm_macaron(x))
    x = x + scale * block.mixer(block.norm_mixer(x), lengths)
    if hasattr(block, "norm_conv"):
        x = x + scale * block.conv_module(block.norm_conv(x), lengths)
    if hasattr(block, "norm_ff"):
        x = x + half * block.feed_forward(block.norm_ff(x))
    return block.norm_final(x) if hasattr(block, "norm_final") else x


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("parts", PARTS)
def test_parts_scale_and_padding(parts, scale):
    block, x = make(**parts), torch.randn(2, 9, 8)
    x[1, 4:] = 0
    out = block(x, LENGTHS, scale)
    for b, length in enumerate(LENGTHS.tolist()):
        want = formula(block, x[b : b + 1, :length], LENGTHS[b : b + 1], scale)
        assert torch.allclose(out[b, :length], want[0], atol=1e-5)
        assert (out[b, length:] == 0).all()


@pytest.mark.parametrize("size", [1, 2, 9])
@pytest.mark.parametrize("parts", PARTS)
def test_pieces_give_what_the_whole_gives(parts, size):
    block, x = make(**parts), torch.randn(2, 9, 8)
    assert block.causal
    pieces, state = in_pieces(block, x, size)
    whole = block(x, torch.tensor([9, 9]))
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_a_block_is_causal_if_all_its_parts_are():
    assert not make("outer").causal
    assert not make(kernel_size=5, causal=False).causal
    assert make(kernel_size=5).causal


def test_the_activation_is_that_of_every_module():
    x = torch.randn(1, 9, 8)
    for name, activation in (("gelu", torch.nn.GELU), ("relu", torch.nn.ReLU)):
        block = make(hidden=12, macaron=True, kernel_size=5, activation=name)
        same = make(hidden=12, macaron=True, kernel_size=5)
        same.load_state_dict(block.state_dict())
        assert not torch.allclose(block(x, torch.tensor([9])), same(x, torch.tensor([9])))
        same.feed_forward[1] = same.feed_forward_macaron[1] = activation()
        same.conv_module.activation = activation()
        assert torch.equal(block(x, torch.tensor([9])), same(x, torch.tensor([9])))
