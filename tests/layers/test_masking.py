"""Zeros beyond the lengths."""

import pytest
import torch

from mambaasr.layers.masking import zero_padding


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 4), (3, 6, 2, 5)])
def test_zeros_beyond_whatever_was_there(shape):
    x = torch.full(shape, float("nan"))
    lengths = torch.tensor([6, 0, 2])
    for b, length in enumerate(lengths):
        x[b, :length] = 1.0
    out = zero_padding(x, lengths)
    for b, length in enumerate(lengths):
        assert (out[b, :length] == 1).all() and (out[b, length:] == 0).all()


def test_without_padding_nothing_is_done():
    x = torch.randn(2, 6, 4)
    assert zero_padding(x, torch.tensor([6, 6])) is x
    assert zero_padding(x[:0], torch.zeros(0, dtype=torch.int64)).shape == (0, 6, 4)
