"""Places for adapters: nothing until they are filled, then on every way through a block."""

import pytest
import torch
from sequences import in_pieces
from torch import nn

from mambaasr.layers.block import EncoderBlock
from mambaasr.layers.mixer_conf import MixerConf

PLACES = ("feed_forward_macaron", "mixer", "conv_module", "feed_forward")


def make():
    torch.manual_seed(0)
    mixer = MixerConf().make(8)
    return EncoderBlock(
        8, mixer, hidden=12, macaron=True, kernel_size=3, causal=True, dropout_rate=0.0
    )


def test_empty_places_hold_no_parameter():
    block = make()
    assert block.adapter_places() == PLACES
    assert not [name for name in block.state_dict() if "adapter" in name]
    with pytest.raises(ValueError, match="place of an adapter is 'ff'; choose one of feed_forward"):
        block.set_adapter("ff", nn.Identity())
    plain = EncoderBlock(8, MixerConf().make(8))
    assert plain.adapter_places() == ("mixer",)


@pytest.mark.parametrize("place", PLACES)
def test_an_adapter_is_used_whole_and_in_pieces_and_leaks_no_padding(place):
    block, x, lengths = make(), torch.randn(2, 9, 8), torch.tensor([9, 4])
    before = block(x, lengths)
    block.set_adapter(place, nn.Linear(8, 8))
    after = block(x, lengths)
    assert not torch.allclose(before, after)
    assert torch.allclose(block(x[1:, :4], lengths[1:])[0], after[1, :4], atol=1e-6)
    assert (after[1, 4:] == 0).all()
    pieces, state = in_pieces(block, x, 4)
    whole = block(x, torch.tensor([9, 9]))
    assert torch.allclose(pieces, whole, atol=1e-5)
    block.set_adapter(place, nn.Identity())
    assert torch.equal(block(x, lengths), before)
