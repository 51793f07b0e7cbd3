"""Unimodal aggregation."""

import pytest
import torch
from sequences import poisoned

from mambaasr.layers.uma import DEPTH, LEAST, UnimodalAggregation

LENGTHS = torch.tensor([40, 0, 1, 2, 17])


def make(max_frames=None):
    torch.manual_seed(0)
    return UnimodalAggregation(8, max_frames)


def by_loop(module, x):
    """Tokens of one utterance (time, width), frame by frame as the paper says."""
    logits = module.linear(x).squeeze(-1).clamp(min=LEAST)
    cuts = [0]
    for i in range(1, len(x) - 1):
        before, here, after = logits[i - 1 : i + 2]
        long = module.max_frames is not None and (i - cuts[-1]) == module.max_frames
        if (here + DEPTH < before and here + DEPTH < after) or long:
            cuts.append(i)
    tokens = []
    for start, end in zip(cuts, [*cuts[1:], len(x) - 1], strict=True):
        weight = logits[start : end + 1, None].sigmoid()
        tokens.append((weight * x[start : end + 1]).sum(0) / weight.sum())
    return torch.stack(tokens)


def with_weights(module, logits):
    """Features (1, time, 8) whose frames get these logits; the others channels are random."""
    with torch.no_grad():
        module.linear.weight.zero_()
        module.linear.weight[0, 0] = 1
        module.linear.bias.zero_()
    x = torch.randn(1, len(logits), 8)
    x[0, :, 0] = torch.tensor(logits)
    return x


@pytest.mark.parametrize("max_frames", [None, 1, 4])
def test_tokens_and_gradients_are_those_of_the_loop(max_frames):
    module = make(max_frames)
    x = torch.randn(5, 40, 8)
    padded = poisoned(x, LENGTHS)
    padded.requires_grad_()
    tokens, counts = module(padded, LENGTHS)
    assert tokens.shape[1] == counts.max() and counts[1] == 0
    for b, length in enumerate(LENGTHS.tolist()):
        assert (tokens[b, counts[b] :] == 0).all()
        if length:
            want = by_loop(module, x[b, :length])
            assert counts[b] == len(want)
            assert torch.allclose(tokens[b, : counts[b]], want, atol=1e-6)
    parameters = list(module.parameters())
    got = torch.autograd.grad(tokens.square().sum(), [padded, *parameters])
    x.requires_grad_()
    loss = sum(by_loop(module, x[b, :n]).square().sum() for b, n in enumerate(LENGTHS) if n)
    want = torch.autograd.grad(loss, [x, *parameters])
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, atol=1e-4)


def test_batch_equals_single():
    module = make()
    x = torch.randn(5, 40, 8)
    tokens, counts = module(x, LENGTHS)
    for b, length in enumerate(LENGTHS.tolist()):
        alone, count = module(x[b : b + 1, :length], LENGTHS[b : b + 1])
        assert count == counts[b] and torch.allclose(alone[0], tokens[b, :count], atol=1e-6)


def test_neighbouring_segments_share_the_frame_of_the_minimum():
    module = make()
    x = with_weights(module, [0.0, 2.0, -1.0, 3.0, 1.0])
    tokens, counts = module(x, torch.tensor([5]))
    w = x[0, :, :1].sigmoid()
    assert counts.tolist() == [2]
    first = (w * x[0])[:3].sum(0) / w[:3].sum()
    second = (w * x[0])[2:].sum(0) / w[2:].sum()
    assert torch.allclose(tokens[0], torch.stack([first, second]), atol=1e-6)


def test_what_rounding_can_turn_is_no_minimum():
    module = make()
    x = with_weights(module, [1.0, 1.0 - 1e-6, 1.0, 1.0 - 2e-6, 1.0, 0.5, 1.0])
    assert module(x, torch.tensor([7]))[1].tolist() == [2]


def test_weights_of_almost_zero_still_average():
    module = make()
    x = with_weights(module, [-200.0, -300.0, -250.0])
    tokens, counts = module(x, torch.tensor([3]))
    assert counts.tolist() == [1]
    assert torch.allclose(tokens[0, 0], x[0].mean(0), rtol=1e-4)


def test_max_frames_bounds_segments():
    x = with_weights(make(), [float(i) for i in range(23)])  # no minimum at all
    for most, count in ((None, 1), (1, 22), (4, 6), (11, 2), (22, 1)):
        module = make(most)
        with_weights(module, [0.0])
        assert module(x, torch.tensor([23]))[1].tolist() == [count]
    with pytest.raises(ValueError, match="max_frames is 0; it must be positive, or null"):
        UnimodalAggregation(8, 0)


def test_autocast_does_not_coarsen_the_cuts():
    module = make()
    x = torch.randn(2, 60, 8)
    lengths = torch.tensor([60, 33])
    _, counts = module(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, low = module(x, lengths)
    assert torch.equal(counts, low)


@pytest.mark.parametrize("max_frames", [None, 3])
@pytest.mark.parametrize("sizes", [[40], [1] * 40, [0, 7, 0, 1, 20, 12, 0], [39, 1], [1, 39]])
def test_pieces_give_what_the_whole_gives(max_frames, sizes):
    module = make(max_frames)
    x = torch.randn(3, 40, 8, requires_grad=True)
    want, counts = module(x, torch.tensor([40, 40, 40]))
    state, rows = module.initial_state(3), [[], [], []]
    for index, piece in enumerate(x.split(sizes, dim=1)):
        tokens, count, state = module.forward_chunk(piece, state, last=index + 1 == len(sizes))
        assert tokens.shape[1] == count.max()
        for row, found, number in zip(rows, tokens, count, strict=True):
            row.append(found[:number])
            assert (found[number:] == 0).all()
    assert state is None
    got = [torch.cat(row) for row in rows]
    for row, whole, count in zip(got, want, counts, strict=True):
        assert len(row) == count and torch.allclose(row, whole[:count], atol=1e-6)
    got = torch.autograd.grad(sum(row.square().sum() for row in got), x)[0]
    assert torch.allclose(got, torch.autograd.grad(want.square().sum(), x)[0], atol=1e-5)


def test_a_token_comes_one_frame_after_its_last():
    module = make()
    x = with_weights(module, [0.0, 2.0, -1.0, 3.0, 1.0])
    state = module.initial_state(1)
    came = []
    for place in range(5):
        _, count, state = module.forward_chunk(x[:, place : place + 1], state, last=place == 4)
        came.append(int(count))
    assert came == [0, 0, 0, 1, 1]


def test_no_frames_at_all():
    module = make()
    for frames in ([], [0, 0]):
        state = module.initial_state(2)
        for _ in frames:
            tokens, counts, state = module.forward_chunk(torch.zeros(2, 0, 8), state)
            assert tokens.shape == (2, 0, 8) and counts.tolist() == [0, 0]
        tokens, counts, state = module.forward_chunk(torch.zeros(2, 0, 8), state, last=True)
        assert tokens.shape == (2, 0, 8) and counts.tolist() == [0, 0] and state is None
