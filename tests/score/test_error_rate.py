"""Tests of mambaasr.score.error_rate."""

import random

import pytest

from mambaasr.errors import UserError
from mambaasr.score.error_rate import (
    Counts,
    align,
    by_group,
    characters,
    confusions,
    macro_average,
    total,
    words,
)


def kinds(utterance):
    return "".join(pair.kind for pair in utterance.pairs)


def test_counts_of_a_known_alignment():
    (utterance,) = align({"u": "a b c d"}, {"u": "a x d e"}, words)
    assert utterance.counts.units == 4
    assert utterance.counts.errors == 3
    (utterance,) = align({"u": "the cat sat down"}, {"u": "the dog sat down now"}, words)
    assert kinds(utterance) == "CSCCI"
    assert utterance.counts == Counts(1, 1, 4, 3, 1, 0, 1)
    assert utterance.counts.error_rate == 50.0


@pytest.mark.parametrize("hypotheses", [{}, {"u": ""}, {"u": "  "}])
def test_missing_or_empty_hypothesis_is_deleted(hypotheses):
    (utterance,) = align({"u": "a b"}, hypotheses, words)
    assert kinds(utterance) == "DD"
    assert utterance.counts.error_rate == 100.0


def test_empty_reference_counts_insertions():
    utterances = align({"u": "", "v": "a b"}, {"u": "x y", "v": "a b"}, words)
    assert [kinds(each) for each in utterances] == ["II", "CC"]
    assert total(utterances) == Counts(2, 1, 2, 2, 0, 0, 2)
    silent = align({"u": ""}, {"u": ""}, words)
    assert total(silent) == Counts(1)
    assert total(silent).error_rate is None
    assert total(silent).sentence_error_rate == 0.0


def test_unknown_hypothesis_and_no_references_are_refused():
    with pytest.raises(UserError, match="'v' .and 1 more. is not among the references"):
        align({"u": "a"}, {"u": "a", "w": "a", "v": "a"}, words)


def test_characters_keep_words_apart():
    assert characters(" a  bc\tü ") == ["a", "<space>", "b", "c", "<space>", "ü"]
    (utterance,) = align({"u": "一 二"}, {"u": "一二"}, characters)
    assert kinds(utterance) == "CDC"


def test_agrees_with_an_edit_distance_of_its_own():
    """A plain dynamic programme gives the same number of errors; counts are consistent."""
    rng = random.Random(0)
    refs = {str(i): " ".join(rng.choices("abc", k=rng.randrange(12))) for i in range(200)}
    hyps = {str(i): " ".join(rng.choices("abc", k=rng.randrange(12))) for i in range(200)}
    for utterance in align(refs, hyps, words):
        ref, hyp = refs[utterance.utt].split(), hyps[utterance.utt].split()
        counts = utterance.counts
        assert counts.errors == edit_distance(ref, hyp)
        assert counts.units == len(ref) == counts.correct + counts.substitutions + counts.deletions
        assert len(hyp) == counts.correct + counts.substitutions + counts.insertions
        assert [pair.ref for pair in utterance.pairs if pair.kind != "I"] == ref
        assert [pair.hyp for pair in utterance.pairs if pair.kind != "D"] == hyp
        assert all((pair.kind == "C") == (pair.ref == pair.hyp) for pair in utterance.pairs)


def edit_distance(ref, hyp):
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        previous, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (r != h))
    return row[-1]


def test_by_speaker_adds_up():
    refs = {"a1": "x y", "a2": "z", "b1": "w"}
    utterances = align(refs, {"a1": "x", "b1": "w v"}, words)
    rows = by_group(utterances, {"a1": "a", "a2": "a", "b1": "b"})
    assert list(rows) == ["a", "b"]
    assert rows["a"] == Counts(2, 2, 3, 1, 0, 2, 0)
    assert rows["a"] + rows["b"] == total(utterances)


def test_the_mean_counts_every_language_the_same():
    refs = {"a1": "x y", "a2": "z z", "b1": "w", "c1": ""}
    utterances = align(refs, {"a1": "x y", "a2": "z z", "b1": "v v", "c1": "u"}, words)
    rows = by_group(utterances, {"a1": "a", "a2": "a", "b1": "b", "c1": "c"}, "language")
    mean = macro_average([row.as_dict() for row in rows.values()])
    # c has no word in its reference, hence no rate; the whole has 3 errors in 5 words.
    assert (mean["groups"], mean["units"], mean["sentences"]) == (2, 5, 3)
    assert (mean["error_rate"], mean["sentence_error_rate"]) == (100, 50)
    assert (mean["substitutions"], mean["insertions"], mean["correct"]) == (50, 50, 50)
    assert macro_average([rows["c"].as_dict()]) is None
    with pytest.raises(UserError, match="'c1' has no language in utt2lang"):
        by_group(utterances, {"a1": "a", "a2": "a", "b1": "b"}, "language")


def test_confusions_are_sorted_by_count():
    refs = {"u": "a a b", "v": "a c"}
    utterances = align(refs, {"u": "x x y", "v": "x c"}, words)
    assert confusions(utterances, "S") == [(("a", "x"), 3), (("b", "y"), 1)]
