"""Rows that ESPnet's searches hold: gathered, evicted, replayed."""

import pytest
import torch

from mambaasr.layers import espnet_scorer
from mambaasr.layers.espnet_scorer import ESPnetScorer
from mambaasr.layers.output import SoftmaxOutput
from mambaasr.layers.stateful import RecurrentScorer, RecurrentState

TOKENS = 5


class Reader(ESPnetScorer, RecurrentScorer):
    """Its state is the sum of the speech and of weighted tokens; it counts its calls."""

    output = SoftmaxOutput(torch.nn.Linear(1, TOKENS))

    def __init__(self):
        self.started, self.steps = 0, []

    def start(self, speech, lengths=None):
        self.started += 1
        times = [speech.shape[1]] * len(speech) if lengths is None else lengths.tolist()
        sums = [x[:time].sum() for x, time in zip(speech, times, strict=True)]
        return RecurrentState.of_mixers([(torch.stack(sums)[:, None],)])

    def step(self, tokens, state):
        self.steps.append(tuple(tokens.shape))
        ((sums,),) = state.of_each_mixer()
        state.position = state.position + 1
        sums.mul_(0.5).add_(tokens.flatten()[:, None])
        return (sums * torch.arange(TOKENS)).unflatten(0, tokens.shape).sin(), state


def score(x, y):
    """What the reader has to say of one text, by its definition."""
    value = x.sum()
    for token in y:
        value = 0.5 * value + token
    return (value * torch.arange(TOKENS)).sin().log_softmax(-1)


def check(scores, xs, ys):
    for row, x, y in zip(scores, xs, ys, strict=True):
        assert torch.allclose(row, score(x, y), atol=1e-6)


@pytest.fixture
def speech():
    torch.manual_seed(0)
    return torch.randn(3, 6, 2)


def texts(rows, length=9):
    return torch.randint(0, TOKENS, (rows, length), generator=torch.Generator().manual_seed(1))


def test_rows_may_be_any_and_are_not_changed(speech):
    reader, ys = Reader(), texts(4)
    first = reader.batch_init_state(speech)
    assert reader.started == 1
    _, once = reader.batch_score(ys[:3, :1], [first] * 3, speech)
    for order in ([0, 1, 2], [0, 0, 1, 1], [2, 0, 0, 1], [1], [1, 0, 1]):
        tokens = torch.stack([ys[row, :2] for row in order])
        scores, _ = reader.batch_score(tokens, [once[row] for row in order], speech[order])
        check(scores, speech[order], tokens)
    # As many of each utterance share it; others are utterances of their own.
    assert reader.steps == [(3, 1), (3, 1), (2, 2), (4, 1), (1, 1), (3, 1)]


def test_rows_of_several_searches_are_put_together(speech):
    reader, ys = Reader(), texts(3)
    rows = [reader.init_state(x) for x in speech]
    for length in (1, 2, 3):
        scores, rows = reader.batch_score(ys[:, :length], rows, speech)
        check(scores, speech, ys[:, :length])
    assert reader.steps == [(3, 1)] * 3 and len(rows[0].search.frames) == 3


def test_hypotheses_without_a_state_share_that_of_their_speech(speech):
    reader, ys = Reader(), texts(4)
    xs = speech[1].expand(4, -1, -1)
    scores, rows = reader.batch_score(ys[:, :3], [None] * 4, xs)
    check(scores, xs, ys[:, :3])
    assert reader.started == 1 and reader.steps == [(1, 4)] * 3
    scores, rows = reader.batch_score(ys[:, :4], rows, torch.cat([xs, xs], dim=1))
    check(scores, torch.cat([xs, xs], dim=1), ys[:, :4])
    assert reader.started == 2  # more speech: new states, replayed


def test_masked_speech_counts_as_far_as_it_goes(speech):
    reader, ys = Reader(), texts(3)
    lengths = torch.tensor([6, 2, 4])
    mask = (torch.arange(6) < lengths[:, None]).unsqueeze(1)
    begun = [reader.batch_init_state(speech, xs_lengths=lengths)] * 3
    for states in (begun, [None] * 3):
        scores, _ = reader.batch_score(ys[:, :2], states, speech, xs_mask=mask)
        check(scores, [x[:n] for x, n in zip(speech, lengths, strict=True)], ys[:, :2])


def test_memory_does_not_grow_with_the_text_that_ended_hypotheses_hold(speech, monkeypatch):
    monkeypatch.setattr(espnet_scorer, "KEPT_BYTES", 0)
    reader, ys = Reader(), texts(3, 40)
    rows, held = [reader.init_state(speech[0])] * 3, []
    for length in range(1, 41):
        _, rows = reader.batch_score(ys[:, :length], rows, speech[:1].expand(3, -1, -1))
        held.append(rows)
    alive = [several[0].batch.state for several in held if not several[0].evicted]
    assert len(alive) == espnet_scorer.KEPT_TOKENS and reader.steps == [(1, 3)] * 40
    # And what is evicted serves the next ones.
    assert len({state.recurrent[0].data_ptr() for state in alive}) == len(alive)
    scores, _ = reader.batch_score(ys[:, :21], held[19], speech[:1].expand(3, -1, -1))
    check(scores, speech[:1].expand(3, -1, -1), ys[:, :21])
    assert len(reader.steps) == 40 + 21


def test_small_states_all_stay(speech):
    reader, ys, held = Reader(), texts(3, 40), []
    rows = [reader.init_state(speech[0])] * 3
    for length in range(1, 41):
        _, rows = reader.batch_score(ys[:, :length], rows, speech[:1].expand(3, -1, -1))
        held.append(rows)
    assert not any(several[0].evicted for several in held)
