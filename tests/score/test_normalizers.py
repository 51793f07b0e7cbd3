"""Tests of mambaasr.score.normalizers."""

import importlib.util
import sys

import pytest

from mambaasr.errors import UserError
from mambaasr.score.normalizers import NORMALIZERS, find_normalizer


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gigaspeech", "um four o'clock <comma> UH said Huh <PERIOD>", "FOUR O'CLOCK SAID"),
        ("gigaspeech", "STATE-OF-THE-ART <unk> UH-HUH", "STATE OF THE ART"),
        ("gigaspeech", "<SIL>", ""),
        ("gigaspeech", "UHURA AHEAD", "UHURA AHEAD"),
        ("spgispeech", "We're up 3.5%, Tom -- (e-commerce).", "were up 35 tom ecommerce"),
        ("spgispeech", "", ""),
    ],
)
def test_ours(name, text, expected):
    normalize, shown = find_normalizer(name)
    assert normalize(text) == expected and shown == name
    assert normalize(expected) == expected


@pytest.mark.skipif(
    importlib.util.find_spec("whisper_normalizer") is None,
    reason="whisper-normalizer is not installed",
)
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "whisper_english",
            "Mr. Smith, um, won't pay twenty-five dollars!",
            "mister smith will not pay $25",
        ),
        ("whisper_basic", "Wie geht’s? [lacht] – Gut!", "wie geht s gut"),
    ],
)
def test_whisper(name, text, expected):
    normalize, shown = find_normalizer(name)
    assert normalize(text).split() == expected.split()
    assert shown.startswith(f"{name} (whisper-normalizer ")


@pytest.mark.parametrize("name", ["whisper_english", "whisper_basic"])
def test_without_the_package_it_says_what_to_install(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(UserError, match=f"{name} comes with .*uv pip install whisper-normalizer"):
        find_normalizer(name)


def test_an_unknown_one():
    with pytest.raises(
        UserError, match="no normalizer 'whisper'; there are: none, whisper_english"
    ):
        find_normalizer("whisper")
    assert len(NORMALIZERS) == 5
