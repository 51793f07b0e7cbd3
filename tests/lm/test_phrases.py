"""Phrases that a search prefers."""

import random

import pytest
import torch

from mambaasr.errors import UserError
from mambaasr.lm.phrases import load_phrases, phrase_scorer

TOKENS = ["<blank>", "<unk>", *"abcd", "<sos/eos>"]
A, B, C, D, END = 2, 3, 4, 5, 6


def bonus(text, phrases, tokens=TOKENS):
    """Return what a text gains, its end included, by the scorer's steps."""
    scorer = phrase_scorer(phrases, tokens)
    state, total = scorer.start(1), 0.0
    for token, following in zip([len(tokens) - 1, *text], [*text, len(tokens) - 1], strict=True):
        scores, state = scorer.step(torch.tensor([[token]]), state)
        total += float(scores[0, 0, following])
    return total


@pytest.mark.parametrize(
    ("text", "gain"),
    [
        ([A, B, C], 3),
        ([A, B], 0),  # left before its end
        ([A, B, D], 0),
        ([D, A, B, C, D], 3),
        ([A, B, A, B, C], 3),
        ([A, B, C, A, B, C], 6),
        ([D, D], 0),
        ([], 0),
    ],
)
def test_a_whole_phrase_gains_its_tokens(text, gain):
    assert bonus(text, [[A, B, C]]) == pytest.approx(gain, abs=1e-5)


def test_a_phrase_may_begin_with_another():
    phrases = [[A, B], [A, B, C, D]]
    assert bonus([A, B], phrases) == pytest.approx(2, abs=1e-5)
    assert bonus([A, B, C], phrases) == pytest.approx(2, abs=1e-5)
    assert bonus([A, B, C, D], phrases) == pytest.approx(2 + 4, abs=1e-5)


def test_what_ends_a_phrase_may_begin_another():
    assert bonus([A, B, A], [[A, B, A]]) == pytest.approx(3, abs=1e-5)
    assert bonus([A, B, A, D], [[A, B, A]]) == pytest.approx(3, abs=1e-5)
    # Each of two that overlap counts whole.
    assert bonus([A, B, C], [[A, B], [B, C]]) == pytest.approx(4, abs=1e-5)


def gain_by_hand(text, phrases):
    """Count the tokens of the phrases wherever one stands in the text."""
    return sum(
        len(phrase) * sum(text[i : i + len(phrase)] == phrase for i in range(len(text)))
        for phrase in phrases
    )


@pytest.mark.parametrize("text", [[A, B], [D, B], [A, B, C], [A, B, C, A], [B, C, D]])
def test_a_phrase_within_the_beginning_of_another(text):
    """It counts, whether the longer one goes on or not."""
    phrases = [[A, B, C, D], [B, C], [B]]
    assert bonus(text, phrases) == pytest.approx(gain_by_hand(text, phrases), abs=1e-4)


def test_random_texts_and_phrases():
    draw = random.Random(1)
    for _ in range(60):
        drawn = [tuple(draw.choices([A, B, C], k=draw.randint(1, 4))) for _ in range(3)]
        phrases = [list(phrase) for phrase in dict.fromkeys(drawn)]
        text = draw.choices([A, B, C, D], k=12)
        assert bonus(text, phrases) == pytest.approx(gain_by_hand(text, phrases), abs=1e-4), (
            phrases,
            text,
        )


def test_files(tmp_path):
    def spell(text):
        return [TOKENS.index(c) if c in TOKENS else 1 for c in text]

    path = tmp_path / "phrases"
    path.write_text("abc\n\n  d \n")
    scorer = load_phrases(path, spell, TOKENS)
    scores, _ = scorer.step(torch.tensor([[END]]), scorer.start(1))
    assert [int(x) for x in scores[0, 0]] == [0, 0, 1, 0, 0, 1, 0]
    path.write_text("abc\nxyz\n")
    with pytest.raises(UserError, match="phrases:2: 'xyz' has characters that no token"):
        load_phrases(path, spell, TOKENS)
    path.write_text("\n")
    with pytest.raises(UserError, match="there is no phrase"):
        load_phrases(path, spell, TOKENS)
    with pytest.raises(UserError, match="cannot be read"):
        load_phrases(tmp_path / "none", spell, TOKENS)
