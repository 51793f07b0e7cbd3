"""Speech-Mamba: sizes, order of the layers, ablations."""

import pytest
import torch

from mambaasr.encoder.speech_mamba import ResidualLayer, SpeechMambaEncoder
from mambaasr.layers.attention import SelfAttention
from mambaasr.layers.mamba import Mamba


def kinds(encoder):
    return [[type(layer.inner) for layer in block] for block in encoder.blocks]


def test_layers_stand_in_the_papers_order_and_ablations_leave_some_out():
    small = dict(output_size=16, num_blocks=2, d_state=4, input_layer="linear")
    for options, want in (
        (dict(), [Mamba, SelfAttention, Mamba]),
        (dict(use_attention=False), [Mamba, Mamba]),
        (dict(mamba_before=0, mamba_after=0), [SelfAttention]),
        (dict(mamba_before=0), [SelfAttention, Mamba]),
        (dict(mamba_before=2, mamba_after=1), [Mamba, Mamba, SelfAttention, Mamba]),
    ):
        assert kinds(SpeechMambaEncoder(8, **small, **options)) == [want] * 2


def test_positions_act_where_they_belong():
    small = dict(output_size=16, num_blocks=1, mamba_before=0, mamba_after=0, input_layer="linear")
    lengths = torch.tensor([6])
    x = torch.randn(1, 6, 8)
    for positions, same in (("none", True), ("sinusoidal", False), ("rotary", False)):
        encoder = SpeechMambaEncoder(8, **small, positions=positions).eval()
        one, two = encoder(x, lengths)[0], encoder(x.flip(1), lengths)[0].flip(1)
        assert torch.allclose(one, two, atol=1e-5) == same


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_speech_beyond_100_seconds(positions):
    encoder = SpeechMambaEncoder(
        *(80, 8, 1), attention_heads=1, d_state=2, positions=positions, input_layer="conv2d"
    ).eval()
    x, lengths = torch.randn(2, 11_000, 80), torch.tensor([11_000, 10_300])
    out, lengths, _ = encoder(x, lengths)
    assert lengths.tolist() == [2749, 2574] and torch.isfinite(out).all()


def test_the_residual_is_summed_in_fp32():
    layer = ResidualLayer(8, Mamba(8, d_state=2)).bfloat16()
    x = torch.randn(2, 5, 8).bfloat16()
    out = layer(x, torch.tensor([5, 5]))
    assert out.dtype == torch.float32
    assert torch.equal(out, x.float() + layer.inner(layer.norm(x), torch.tensor([5, 5])).float())


@torch.no_grad()
def test_weights_of_half_the_width_are_near_the_whole():
    torch.manual_seed(0)
    encoder = SpeechMambaEncoder(8, 16, 2, d_state=2, input_layer="linear", attention_heads=2)
    x, lengths = torch.randn(2, 20, 8), torch.tensor([20, 13])
    want, _, _ = encoder.eval()(x, lengths)
    got, _, _ = encoder.bfloat16()(x.bfloat16(), lengths)
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()
