"""States of hypotheses that change places, leave and come."""

import pytest
import torch

from mambaasr.layers.stateful import RecurrentState


def make(u=2, k=3, times=(4, 2), start=0.0):
    """Two mixers whose state has two parts; values tell mixer, utterance and hypothesis."""
    mixer, utterance, hypothesis = torch.meshgrid(
        *(torch.arange(float(n)) for n in (2, u, k)), indexing="ij"
    )
    value = start + 100 * mixer + 10 * utterance + hypothesis
    recurrent = (value[..., None].repeat(1, 1, 1, 5), value[..., None, None].repeat(1, 1, 1, 2, 3))
    longest = max(times)
    mask = torch.arange(longest) < torch.tensor(times)[:, None]
    memory = start + 10 * torch.arange(float(u))[:, None, None, None].repeat(1, 2, longest, 4)
    return RecurrentState(
        recurrent, torch.arange(u), (memory, memory + 1), None if mask.all() else mask
    )


def values(state):
    return state.recurrent[0][0, :, :, 0].tolist()


def test_the_first_state_is_made_of_the_mixers():
    mixers = [(torch.full((2, 5), m), torch.full((2, 3), m + 0.5)) for m in (0.0, 1.0, 2.0)]
    state = RecurrentState.of_mixers(mixers)
    assert (state.utterances, state.hypotheses) == (2, 1)
    assert state.nbytes == 3 * 2 * 8 * 4
    assert state.position.tolist() == [0, 0] and state.memory == () and state.mask is None
    for (a, b), (x, y) in zip(mixers, state.of_each_mixer(), strict=True):
        assert torch.equal(a, x) and torch.equal(b, y)


def test_hypotheses_change_places_within_their_utterance():
    state = make()
    again = state.reorder(torch.tensor([[2, 2, 0, 1], [0, 0, 0, 1]]))
    assert values(again) == [[2, 2, 0, 1], [10, 10, 10, 11]]
    for part, old in zip(again.recurrent, state.recurrent, strict=True):
        assert torch.equal(part[1, 0, 3], old[1, 0, 1])
    assert all(a is b for a, b in zip(again.memory, state.memory, strict=True))
    assert again.mask is state.mask and again.position.tolist() == [0, 1]


def test_what_a_copy_becomes_leaves_the_state_alone():
    state = make()
    copy = state.reorder()
    for part in copy.of_each_mixer()[1]:
        part.add_(1000)
    assert values(copy) == values(state) == [[0, 1, 2], [10, 11, 12]]
    assert copy.recurrent[0][1, 1, 2, 0] == 1112 and state.recurrent[0][1, 1, 2, 0] == 112


def test_utterances_leave_and_memory_shrinks_to_the_longest():
    state = make(times=(4, 2, 3), u=3)
    rest = state.reorder(utterances=torch.tensor([2, 1]))
    assert values(rest) == [[20, 21, 22], [10, 11, 12]]
    assert rest.position.tolist() == [2, 1]
    assert rest.memory[1][:, 0, :, 0].tolist() == [[21] * 3, [11] * 3]
    assert rest.mask.tolist() == [[True] * 3, [True, True, False]]
    last = rest.reorder(torch.tensor([[1]]), torch.tensor([1]))
    assert values(last) == [[11]] and last.mask is None and last.memory[0].shape[2] == 2


@pytest.mark.parametrize("spare_size, reused", [(3, True), (5, True), (1, False)])
def test_memory_of_a_state_that_nobody_needs_serves_again(spare_size, reused):
    state, spare = make(), make(k=spare_size, start=500.0)
    new = state.reorder(torch.tensor([[1, 1, 2], [0, 1, 2]]), out=spare)
    assert values(new) == [[1, 1, 2], [10, 11, 12]]
    pairs = zip(new.recurrent, spare.recurrent, strict=True)
    assert all((a.data_ptr() == b.data_ptr()) == reused for a, b in pairs)
    with pytest.raises(ValueError, match="over itself"):
        state.reorder(out=state)


def test_utterances_join_others():
    both = RecurrentState.join([make(times=(2, 2)), make(u=1, times=(3,), start=500.0)])
    assert values(both) == [[0, 1, 2], [10, 11, 12], [500, 501, 502]]
    assert both.position.tolist() == [0, 1, 0]
    assert both.memory[0][:, 0, :, 0].tolist() == [[0, 0, 0], [10, 10, 0], [500] * 3]
    assert both.mask.tolist() == [[True, True, False]] * 2 + [[True] * 3]
    masked = RecurrentState.join([make(times=(3, 1)), make(u=1, times=(2,))])
    assert masked.mask.tolist() == [[True] * 3, [True, False, False], [True, True, False]]
    assert RecurrentState.join([make(times=(2, 2)), make(times=(2, 2))]).mask is None
    with pytest.raises(ValueError, match=r"states of \[2, 3\] hypotheses cannot be joined"):
        RecurrentState.join([make(), make(k=2)])
