"""Tests of python -m mambaasr.bin.score."""

import json

import pytest

from mambaasr.bin.score import main
from mambaasr.errors import UserError


@pytest.fixture
def files(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_scores_and_comparison(files, tmp_path, capsys):
    ref = files("ref", "u1 one two three\nu2 four\nu3 <noise> five\n")
    hyp = files("hyp", "u1 one two three\nu3 five\n")
    out = tmp_path / "score"
    options = ["--ref", ref, "--hyp", hyp, "--output_dir", str(out)]
    options += ["--utt2spk", files("utt2spk", "u1 s\nu2 s\nu3 t\n")]
    options += ["--nlsyms_txt", files("nlsyms", "<noise>\n"), "--bootstrap_samples", "200"]
    assert main([*options, "--compare", files("other", "u1 one\n")]) == 0
    score = json.loads((out / "score.json").read_text())
    assert score["missing"] == ["u2"]
    assert score["wer"]["units"] == 5 and score["wer"]["deletions"] == 1
    assert score["wer"]["speakers"]["t"]["errors"] == 0
    assert score["compare"]["difference"] == pytest.approx(-60)
    assert "ter" not in score
    printed = capsys.readouterr().out
    assert "counted as deleted: 1." in printed
    assert "WER 20.00 % against 80.00 %" in printed
    assert "no difference is shown" in printed
    assert "| t " not in printed and "| t " in (out / "score.txt").read_text()


def test_control_characters_in_hypotheses_are_wrong_and_no_more(files, capsys):
    """Byte fallback can spell any: <0x00>, <0x1B>."""
    ref = files("ref", "u1 one two\nu2 three\n")
    hyp = files("hyp", "u1 one t\x00wo\nu2 \x1b three\n")
    assert main(["--ref", ref, "--hyp", hyp]) == 0
    # "t\ufffdwo" for "two", and one insertion
    assert (
        "| total |   2 |   3 | 66.7 | 33.3 | 0.0 | 33.3 | 66.7 | 100.0 |" in capsys.readouterr().out
    )
    with pytest.raises(UserError, match="control character"):
        main(["--ref", hyp, "--hyp", ref])


def test_languages_and_how_often_they_were_found(files, tmp_path, capsys):
    ref = files("ref", "u1 one two\nu2 drei\nu3 vier\n")
    options = ["--ref", ref, "--hyp", files("hyp", "u1 one two\nu2 drei\n")]
    told = ["--utt2lang", files("utt2lang", "u1 en\nu2 de\nu3 de\n")]
    found = ["--hyp_lang", files("lang", "u1 en\nu2 en\nu3\n")]
    assert main([*options, *told, *found, "--output_dir", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| mean of 2       |   3 |   4 |  75.0 |" in printed
    assert "Language found: 1 of 3 utterances (33.3 %)" in printed
    assert "Most often wrong: de as en 1, de as none 1." in printed
    table = (tmp_path / "out" / "score.txt").read_text()
    assert "| de           |  0 |  1 |    1 |" in table and "true \\ found" not in printed
    score = json.loads((tmp_path / "out" / "score.json").read_text())
    assert score["wer"]["macro"]["error_rate"] == 25 and score["lid"]["correct"] == 1
    assert score["lid"]["confusion"] == {"de": {"en": 1, "none": 1}, "en": {"en": 1}}
    picture = (tmp_path / "out" / "languages.svg").read_text()
    assert picture.lstrip().startswith("<?xml") and picture.count("<!-- 50 -->") == 2
    with pytest.raises(UserError, match="--hyp_lang needs --utt2lang"):
        main([*options, *found])


def test_a_normalizer_adds_a_rate_and_changes_no_other(files, tmp_path, capsys):
    ref = files("ref", "u1 UH STATE-OF-THE-ART <COMMA> YES <PERIOD>\nu2 UM\n")
    hyp = files("hyp", "u1 state of the art yes um\nu2 uh\n")
    options = ["--ref", ref, "--hyp", hyp, "--utt2spk", files("utt2spk", "u1 s\nu2 t\n")]
    plain, out = tmp_path / "plain", tmp_path / "out"
    assert main([*options, "--output_dir", str(plain)]) == 0
    capsys.readouterr()
    assert main([*options, "--output_dir", str(out), "--normalizer", "gigaspeech"]) == 0
    printed = capsys.readouterr().out
    assert "| Normalized WER | Snt | Wrd |  Corr |" in printed
    assert "Normalized by gigaspeech.\n" in printed
    score, before = (json.loads((folder / "score.json").read_text()) for folder in (out, plain))
    normalized = score.pop("normalized_wer")
    assert normalized["units"] == 5 and normalized["errors"] == 0
    # All of it is a filler: no words, no rate, and it counts as an utterance.
    assert normalized["sentences"] == 2 and normalized["speakers"]["t"]["error_rate"] is None
    assert score.pop("normalizer") == "gigaspeech" and score == before
    assert score["wer"]["units"] == 6
    assert (out / "errors_wer.txt").read_text() == (plain / "errors_wer.txt").read_text()
    with pytest.raises(SystemExit):
        main([*options, "--normalizer", "whisper"])


def test_no_hypothesis_at_all_and_one_too_many(files, capsys):
    ref = files("ref", "u1 a\n")
    assert main(["--ref", ref, "--hyp", files("hyp", "")]) == 0
    assert "| total |   1 |   1 |  0.0 | 0.0 | 100.0 |" in capsys.readouterr().out
    with pytest.raises(UserError, match="hyp: utterance 'u9' is not among the references"):
        main(["--ref", ref, "--hyp", files("hyp", "u1 a\nu9 b\n")])
