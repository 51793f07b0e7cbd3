"""Tests of mambaasr.score.score_files."""

import json

from mambaasr.score.error_rate import align, characters, words
from mambaasr.score.score_files import error_lines, write_scores

REFS = {"a1": "guten tag", "b1": "一 二 三", "c1": "stimmt"}
HYPS = {"a1": "guten morgen tag", "b1": "一 四 三", "c1": "stimmt"}
SPEAKERS = {"a1": "a", "b1": "b", "c1": "a"}


def test_files(tmp_path):
    scores = {"wer": align(REFS, HYPS, words), "cer": align(REFS, HYPS, characters)}
    text = write_scores(tmp_path, scores, SPEAKERS, {"missing": [], "ref": "r"})
    assert (tmp_path / "score.txt").read_text(encoding="utf-8") == text
    assert "| total |   3 |   6 |  83.3 | 16.7 | 0.0 | 16.7 | 33.3 |  66.7 |" in text
    content = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))
    assert content["ref"] == "r"
    assert content["wer"]["errors"] == 2
    assert content["wer"]["speakers"]["a"]["insertions"] == 1
    assert content["cer"]["substitutions"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "errors_cer.txt",
        "errors_wer.txt",
        "score.json",
        "score.txt",
    ]


def test_several_languages_have_a_table_and_a_mean(tmp_path):
    scores = {"wer": align(REFS, HYPS | {"b1": ""}, words)}
    languages = {"a1": "de", "b1": "zh", "c1": "de"}
    text = write_scores(tmp_path, scores, None, {}, languages)
    assert "| de              |   2 |   3 |" in text
    assert "| mean of 2       |   3 |   6 |  50.0 | 0.0 |  50.0 | 16.7 |  66.7 |  75.0 |" in text
    content = json.loads((tmp_path / "score.json").read_text(encoding="utf-8"))["wer"]
    assert content["languages"]["zh"]["deletions"] == 3
    assert round(content["macro"]["error_rate"], 2) == 66.67
    one = write_scores(tmp_path, scores, None, {}, dict.fromkeys(REFS, "de"))
    assert "by language" not in one


def test_errors_are_aligned():
    text = "".join(error_lines(align(REFS, HYPS, words), SPEAKERS))
    assert "  REF guten *      tag\n  HYP guten morgen tag\n            I\n" in text
    assert "b1 (b)  C 2  S 1  D 0  I 0\n" in text
    assert "stimmt" not in text
    assert "      1  二 -> 四\n" in text
    assert "Deletions: 0\n" in text


def test_wide_characters_take_two_columns():
    text = "".join(error_lines(align({"u": "a 二 c"}, {"u": "a bb d"}, words)))
    assert "  REF a 二 c\n  HYP a bb d\n        S  S\n" in text
