"""Zeros beyond the lengths."""

import pytest
import torch

from mambaasr.ops.lengths import keep, reversal, reverse, take, valid_mask, zero_padding


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


@pytest.mark.parametrize("time", [1, -1])
@pytest.mark.parametrize("lengths", [None, [6, 0, 2]])
def test_each_sequence_is_reversed_within_its_length(time, lengths):
    x = torch.randn(3, 6, 4) if time == 1 else torch.randn(3, 4, 6)
    given = None if lengths is None else torch.tensor(lengths)
    out = reverse(x, given, time=time)
    assert torch.equal(reverse(out, given, time=time), x)
    order = reversal(given, 3, 6, x.device)
    assert torch.equal(take(x, order, time=time), out)
    x, out = x.movedim(time, 1), out.movedim(time, 1)
    for b, length in enumerate(lengths or [6] * 3):
        assert torch.equal(out[b, :length], x[b, :length].flip(0))
        assert torch.equal(out[b, length:], x[b, length:])


@pytest.mark.parametrize("time", [1, -1])
def test_what_a_mask_drops_has_no_effect_and_gets_no_gradient(time):
    shape = (2, 5, 3) if time == 1 else (2, 3, 5)
    x = torch.full(shape, float("nan")).requires_grad_()
    mask = valid_mask(torch.tensor([5, 2]), 5)
    with torch.no_grad():
        x.movedim(time, 1)[mask] = 1.0
    y = keep(x, mask, fill=-2.0, time=time)
    y.sum().backward()
    along, grad = y.movedim(time, 1), x.grad.movedim(time, 1)
    assert (along[mask] == 1).all() and (along[~mask] == -2).all()
    assert (grad[mask] == 1).all() and (grad[~mask] == 0).all()
    assert keep(None, mask) is None and keep(x, None) is x and take(None, mask) is None
    assert keep(x[:0], mask[:0], time=time).shape == x[:0].shape
