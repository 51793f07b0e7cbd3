"""CTC's best path."""

import pytest
import torch
from ctc_texts import encode

from mambaasr.search.data import Encoded
from mambaasr.search.greedy import ctc_greedy


def path(labels, vocabulary=4, high=0.9):
    """Log-probabilities (time, v) whose best path is ``labels``."""
    probs = torch.full((len(labels), vocabulary), (1 - high) / (vocabulary - 1))
    probs[torch.arange(len(labels)), labels] = high
    return probs.log()


def encoded(*paths):
    lengths = torch.tensor([len(each) for each in paths])
    log_probs = torch.nn.utils.rnn.pad_sequence(paths, batch_first=True, padding_value=torch.nan)
    frames = torch.zeros(len(paths), int(lengths.max()), 1)
    return Encoded(list(range(len(paths))), frames, lengths, log_probs)


def test_repeats_collapse_and_a_blank_keeps_them_apart():
    labels = [[0, 1, 1, 0, 1, 2, 2, 0], [3], [0, 0], [2, 2, 2, 1]]
    found = ctc_greedy(encoded(*map(path, labels)))
    assert [each.hypotheses[0].tokens for each in found] == [[1, 1, 2], [3], [], [2, 1]]
    for each, frames in zip(found, labels, strict=True):
        score = len(frames) * torch.tensor(0.9).log().item()
        assert each.hypotheses[0].score == pytest.approx(score)
        assert each.hypotheses[0].parts == {"ctc": each.hypotheses[0].score}
    # Another blank.
    assert ctc_greedy(encoded(path([0, 2, 1])), blank_id=2)[0].hypotheses[0].tokens == [0, 1]


def test_companions_change_nothing():
    together = encode([7, 3, 12, 1], vocabulary=6)
    order = [2, 0, 3, 1]
    found = ctc_greedy(together)
    assert ctc_greedy(together.select(order)) == [found[place] for place in order]
    assert [ctc_greedy(together.select([place]))[0] for place in range(4)] == found


def test_what_cannot_be_searched_is_named():
    bad = encode([4, 0, 5, 3])
    bad.log_probs[2, 4, 1] = torch.nan
    found = ctc_greedy(bad)
    assert [each.key for each in found] == bad.keys
    assert [bool(each.hypotheses) for each in found] == [True, False, False, True]
    assert "no frame" in found[1].reason and "not finite" in found[2].reason
    assert found[3] == ctc_greedy(bad.select([3]))[0]
    assert len(ctc_greedy(bad.select([1]))) == 1
    with pytest.raises(ValueError, match="CTC"):
        ctc_greedy(Encoded(["a"], torch.zeros(1, 2, 3), torch.tensor([2])))
