"""Times and confidence of tokens and words on the CTC path."""

import itertools

import pytest
import torch

from mambaasr.decode.align import Span, align, words


def brute_force(log_probs, tokens):
    """The most probable path that stands for the tokens, or None."""
    time, vocabulary = log_probs.shape
    paths = [
        path
        for path in itertools.product(range(vocabulary), repeat=time)
        if [label for label, _ in itertools.groupby(path) if label] == list(tokens)
    ]

    def score(path):
        return sum(float(log_probs[t, label]) for t, label in enumerate(path))

    return max(paths, key=score, default=None)


@pytest.mark.parametrize("tokens", [[1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 2], [1, 2, 1, 2, 1]])
@pytest.mark.parametrize("seed", range(3))
def test_the_path_is_the_best_of_all(tokens, seed):
    random = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(5, 3, generator=random).mul(2).log_softmax(-1)
    path = brute_force(log_probs, tokens)
    assert path is not None
    spans = align(log_probs, tokens)
    runs, time = [], 0
    for label, group in itertools.groupby(path):
        length = len(list(group))
        if label:
            mean = log_probs[time : time + length, label].exp().mean()
            runs.append((time, time + length, pytest.approx(float(mean), rel=1e-5)))
        time += length
    assert [span[:3] for span in spans] == runs
    assert all(0 <= span.confidence <= 1 for span in spans)


def test_what_ctc_cannot_align():
    log_probs = torch.randn(3, 4).log_softmax(-1)
    assert align(log_probs, [1, 2, 3, 1]) is None
    assert align(log_probs, [1, 1, 2]) is None  # a blank has to stand between
    assert len(align(log_probs, [1, 2, 1])) == 3
    assert align(log_probs, [1, 0, 2]) is None
    assert align(log_probs, []) == [] == align(log_probs[:0], [])
    assert align(log_probs[:0], [1]) is None
    assert len(align(log_probs[:1], [2])) == 1
    never = log_probs.clone()
    never[:, 2] = -torch.inf
    assert align(never, [1, 2]) is None
    broken = torch.full((3, 4), torch.nan)
    assert align(broken, [1, 2]) is None
    # Of half precision, and with another blank.
    spans = align(log_probs.bfloat16(), [0, 1], blank_id=3)
    assert [span.end > span.start for span in spans] == [True, True]


def spans(*confidences):
    return [Span(2 * i, 2 * i + 1, each) for i, each in enumerate(confidences)]


def test_words_of_characters():
    tokens = ["<space>", "A", "B", "<space>", "<space>", "C", "<space>"]
    found = words(spans(0.1, 0.9, 0.8, 0.1, 0.1, 0.7, 0.1), tokens, "char")
    assert found == [Span(2, 5, 0.8, "AB"), Span(10, 11, 0.7, "C")]
    assert words([], [], "char") == []


def test_words_of_sentence_pieces():
    tokens = ["▁TH", "E", "▁", "CAT", "S", "▁A", "▁"]
    found = words(spans(0.9, 0.5, 0.4, 0.8, 0.7, 0.6, 0.3), tokens, "bpe")
    assert found == [Span(0, 3, 0.5, "THE"), Span(4, 9, 0.4, "CATS"), Span(10, 11, 0.6, "A")]
    # A text may begin without it.
    assert [word.text for word in words(spans(1, 1), ["X", "▁Y"], "bpe")] == ["X", "Y"]


def test_words_that_are_tokens():
    found = words(spans(0.9, 0.5), ["ONE", "TWO"], "word")
    assert found == [Span(0, 1, 0.9, "ONE"), Span(2, 3, 0.5, "TWO")]


@pytest.mark.parametrize("token_type", ["char", "bpe"])
def test_they_are_the_words_of_the_text(token_type):
    """As the tokenizer's text is split at spaces."""
    space = {"char": "<space>", "bpe": "▁"}[token_type]
    for tokens in itertools.product([space, "A", "B" if token_type == "char" else "▁B"], repeat=5):
        text = "".join(tokens).replace(space, " ")
        assert [w.text for w in words(spans(*[1.0] * 5), tokens, token_type)] == text.split()


def test_characters_spelled_in_bytes():
    spans = [Span(i, i + 1, 0.5) for i in range(5)]
    tokens = ["\u2581ca", "f", "<0xC3>", "<0xA9>", "\u2581x"]
    assert [word.text for word in words(spans, tokens, "bpe")] == ["caf\u00e9", "x"]


def test_spaces_spelled_in_bytes_part_words():
    spans = [Span(i, i + 1, 0.5) for i in range(6)]
    tokens = ["\u2581hi", "<0x0A>", "x", "<0x20>", "\u2581", "<0x09>"]
    found = words(spans, tokens, "bpe")
    assert [word[:2] + (word.text,) for word in found] == [(0, 4, "hi"), (0, 4, "x")]
