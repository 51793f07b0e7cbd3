"""Tests of mambaasr.score.bootstrap."""

import pytest

from mambaasr.errors import UserError
from mambaasr.score.bootstrap import paired_bootstrap
from mambaasr.score.error_rate import align, words

REFS = {f"u{i}": "a b c d e" for i in range(60)}


def system(wrong):
    """Return aligned utterances; ``wrong`` maps an index to its number of wrong words."""
    hyps = {
        utt: " ".join(["x"] * wrong(i) + text.split()[wrong(i) :])
        for i, (utt, text) in enumerate(REFS.items())
    }
    return align(REFS, hyps, words)


def test_same_system_has_no_difference():
    result = paired_bootstrap(system(lambda i: i % 3), system(lambda i: i % 3))
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert not result.significant


def test_constant_difference_has_a_narrow_interval():
    """One more error in every utterance: each drawn test set shows the same difference."""
    result = paired_bootstrap(system(lambda i: i % 3), system(lambda i: i % 3 + 1))
    assert result.difference == pytest.approx(-20)
    assert result.low == pytest.approx(-20) and result.high == pytest.approx(-20)
    assert result.better == 1.0 and result.significant


def test_interval_agrees_with_the_normal_approximation():
    first, second = system(lambda i: i % 2), system(lambda i: (i // 2) % 2)
    result = paired_bootstrap(first, second, samples=20000)
    errors = [a.counts.errors - b.counts.errors for a, b in zip(first, second, strict=True)]
    mean = sum(errors) / len(errors)
    deviation = (sum((e - mean) ** 2 for e in errors) / len(errors) / len(errors)) ** 0.5
    assert result.difference == pytest.approx(20 * mean)
    assert result.high - result.low == pytest.approx(2 * 1.96 * 20 * deviation, rel=0.05)
    assert not result.significant


def test_seed_and_order():
    first, second = system(lambda i: i % 2), system(lambda i: i % 5 == 0)
    one = paired_bootstrap(first, second, samples=500, seed=3)
    assert one == paired_bootstrap(first, second, samples=500, seed=3)
    turned = paired_bootstrap(second, first, samples=500, seed=3)
    assert (turned.low, turned.high) == pytest.approx((-one.high, -one.low))


def test_other_references_are_refused():
    with pytest.raises(UserError, match="same references"):
        paired_bootstrap(system(lambda i: 0), system(lambda i: 0)[1:])
    silent = align({"u": ""}, {}, words)
    with pytest.raises(UserError, match="no words"):
        paired_bootstrap(silent, silent)
