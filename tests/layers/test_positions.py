"""Positions for any length."""

import math

import pytest
import torch

from mambaasr.layers.positions import rotary, sinusoidal


def test_sinusoidal_is_its_formula():
    table = sinusoidal(5, 6)
    for place in range(5):
        for pair in range(3):
            angle = place / 10000 ** (2 * pair / 6)
            assert float(table[place, 2 * pair]) == pytest.approx(math.sin(angle), abs=1e-6)
            assert float(table[place, 2 * pair + 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_pieces_continue_the_whole_however_far():
    whole = sinusoidal(200_003, 8)
    assert torch.equal(sinusoidal(3, 8, 200_000), whole[200_000:])
    each = sinusoidal(3, 8, torch.tensor([0, 7, 200_000]))
    assert torch.equal(each, torch.stack([whole[i : i + 3] for i in (0, 7, 200_000)]))


def test_far_positions_are_as_sharp_as_near_ones():
    place = 1_000_000
    assert float(sinusoidal(1, 4, place)[0, 0]) == pytest.approx(math.sin(place), abs=1e-6)


def test_rotary_products_depend_on_the_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 1, 8)
    near = (rotary(q, 5) * rotary(k, 2)).sum(-1)
    far = (rotary(q, 50_005) * rotary(k, 50_002)).sum(-1)
    other = (rotary(q, 5) * rotary(k, 3)).sum(-1)
    assert torch.allclose(near, far, atol=1e-5)
    assert not torch.allclose(near, other, atol=1e-2)


def test_rotary_keeps_lengths_and_dtype_and_takes_offsets():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 7, 4)
    turned = rotary(x)
    assert torch.allclose(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])
    assert rotary(x.bfloat16()).dtype == torch.bfloat16
    piece = rotary(x[:, :, 4:], torch.tensor([4, 4]))
    assert torch.allclose(piece, turned[:, :, 4:], atol=1e-6)
