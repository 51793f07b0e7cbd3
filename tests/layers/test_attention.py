"""Attention within a sequence, and from text to speech."""

import pytest
import torch
from memory import LargestTensor
from torch import nn

from mambaasr.layers.attention import POSITIONS, CrossAttention, SelfAttention
from mambaasr.layers.positions import rotary


def make(**options):
    torch.manual_seed(0)
    return SelfAttention(16, 4, **options)


@pytest.mark.parametrize("positions", POSITIONS)
def test_padding_has_no_effect_and_gets_no_gradient(positions):
    attention = make(positions=positions)
    lengths = torch.tensor([9, 0, 5])
    x = torch.randn(3, 9, 16, requires_grad=True)
    y = attention(x, lengths)
    for b, length in enumerate(lengths.tolist()):
        alone = attention(x[b : b + 1, :length])
        assert torch.allclose(y[b, :length], alone[0], atol=1e-6)
        assert (y[b, length:] == 0).all()
    y.square().sum().backward()
    assert torch.isfinite(x.grad).all() and (x.grad[0] != 0).all()
    assert (x.grad[1] == 0).all() and (x.grad[2, 5:] == 0).all()
    assert all(torch.isfinite(p.grad).all() and (p.grad != 0).any() for p in attention.parameters())


def test_without_positions_it_is_torchs_attention():
    attention, x = make(), torch.randn(2, 7, 16)
    peer = nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        nn.init.normal_(attention.linear_qkv.bias)
        peer.in_proj_weight.copy_(attention.linear_qkv.weight)
        peer.in_proj_bias.copy_(attention.linear_qkv.bias)
        peer.out_proj.load_state_dict(attention.linear_out.state_dict())
    padded = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
    want, _ = peer(x, x, x, key_padding_mask=padded)
    got = attention(x, torch.tensor([7, 4]))
    assert torch.allclose(got[0], want[0], atol=1e-6)
    assert torch.allclose(got[1, :4], want[1, :4], atol=1e-6)


def test_only_rotary_knows_the_order():
    x = torch.randn(1, 6, 16)
    back = x.flip(1)
    for positions, same in (("none", True), ("rotary", False)):
        attention = make(positions=positions)
        assert torch.allclose(attention(back).flip(1), attention(x), atol=1e-6) == same


def test_rotary_turns_queries_and_keys_by_their_own_frames():
    attention, x = make(positions="rotary"), torch.randn(1, 5, 16)
    parts = attention.linear_qkv(x).unflatten(-1, (3, 4, 4)).permute(2, 0, 3, 1, 4)
    q, k = rotary(parts[0]), rotary(parts[1])
    weights = (q @ k.transpose(-1, -2) / 2).softmax(-1)
    want = attention.linear_out((weights @ parts[2]).transpose(1, 2).flatten(2))
    assert torch.allclose(attention(x), want, atol=1e-6)


def test_dropout_acts_in_training_only():
    attention, x = make(dropout_rate=0.5), torch.randn(1, 20, 16)
    assert not torch.equal(attention(x), attention(x))
    attention.eval()
    assert torch.equal(attention(x), attention(x))


def test_bf16_stays_bf16():
    attention = make(positions="rotary").bfloat16()
    assert attention(torch.randn(2, 5, 16).bfloat16(), torch.tensor([5, 3])).dtype == torch.bfloat16


@pytest.mark.parametrize("positions", POSITIONS)
def test_memory_does_not_grow_with_the_square_of_the_length(positions):
    attention, frames = SelfAttention(8, 2, positions=positions), 1000
    x = torch.randn(2, frames, 8, requires_grad=True)
    with LargestTensor() as memory:
        attention(x, torch.tensor([frames, frames // 2])).sum().backward()
    # Queries, keys and values side by side; a matrix of frames by frames has 1000^2 numbers.
    assert memory.largest <= 4 * 2 * frames * 8 * 8


def test_cross_attention_ignores_masked_memory():
    torch.manual_seed(0)
    attention = CrossAttention(16, 8, 4)
    memory, x = torch.randn(2, 6, 8), torch.randn(2, 3, 16)
    mask = torch.arange(6) < torch.tensor([6, 4])[:, None]
    y = attention(x, *attention.memory(memory), mask)
    alone = attention(x[1:], *attention.memory(memory[1:, :4]))
    assert torch.allclose(y[1:], alone, atol=1e-6)
