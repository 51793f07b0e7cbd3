"""Tests of mambaasr.score.results."""

import json

import pytest

from mambaasr.errors import UserError
from mambaasr.score.error_rate import align, characters, words
from mambaasr.score.results import results_page
from mambaasr.score.score_files import write_scores

DECODING = {
    "command": "python -m mambaasr.bin.asr_inference --nj 2",
    "commit": "0123456789ab (dirty)",
    "date": "2026-01-02T03:04:05+00:00",
    "environment": {"python": "3.11.7", "torch": "2.11.0", "cpu": "a processor"},
    "device": "a processor, 2 cores",
    "parameters": 4312345,
    "nj": 2,
    "failed": 1,
    "rtf": 0.25,
}


@pytest.fixture
def experiment(tmp_path):
    folder = tmp_path / "asr_tiny"
    for name, hyp in (("test_a", "a b"), ("test_b", "a c d")):
        scores = {
            rate: align({"u": "a b"}, {"u": hyp}, split)
            for rate, split in (("wer", words), ("cer", characters))
        }
        write_scores(folder / "decode_asr" / name / "score", scores, None, {"missing": []})
    decoding = DECODING | {"lm_file": str(tmp_path / "lm_tiny/valid.loss.ave.pth")}
    (folder / "decode_asr" / "test_a" / "decode.json").write_text(json.dumps(decoding))
    start = {key: DECODING[key] for key in ("date", "environment", "device")} | {"seed": 3}
    start |= {"command": "train --lr 1", "commit": "abc", "clean": True, "epoch": 1}
    # Killed and gone on with, as before; then by another commit.
    starts = [start | {"statistics": start | {"command": "collect"}}, start | {"epoch": 2}]
    starts += [start | {"commit": "def", "clean": False, "epoch": 4}]
    (folder / "provenance.json").write_text(json.dumps(starts))
    lm = tmp_path / "lm_tiny"
    lm.mkdir()
    (lm / "provenance.json").write_text(json.dumps([start | {"epoch": 3, "command": "lm"}]))
    return folder


def test_page(experiment):
    page = results_page(experiment)
    assert page.startswith("# asr_tiny\n")
    tables = page.split("\n## ")
    assert [part.split("\n")[0] for part in tables[1:]] == ["WER", "CER", "Not decoded", "Origin"]
    head, _, first, second = tables[1].split("\n")[2:6]
    names = ["Test set", "Snt", "Wrd", "Corr", "Sub", "Del", "Ins", "Err", "S.Err", "RTF"]
    assert cells(head) == names
    assert cells(first) == "decode_asr/test_a 1 2 100.0 0.0 0.0 0.0 0.0 0.0 0.250".split()
    assert cells(second) == "decode_asr/test_b 1 2 50.0 50.0 0.0 50.0 100.0 100.0 -".split()
    origin = tables[-1]
    assert "Parameters: 4,312,345" in origin
    assert "- Statistics: `collect`, commit abc, seed 3" in origin
    trained = [line for line in origin.splitlines() if line.startswith("- Training:")]
    assert len(trained) == 2
    assert trained[0].startswith("- Training: `train --lr 1`, commit abc, seed 3, 2026-01-02T03")
    assert trained[0].endswith("on a processor, 2 cores; python 3.11.7, torch 2.11.0")
    own = "- Training of the language model in lm_tiny: "
    assert f"{own}unknown before epoch 3\n{own}`lm`, commit abc, from epoch 3, seed" in origin
    assert trained[1].startswith("- Training: `train --lr 1`, commit def (dirty), from epoch 4,")
    assert "`python -m mambaasr.bin.asr_inference --nj 2`, commit 0123456789ab (dirty)" in origin
    assert "2026-01-02T03:04:05+00:00, 2 jobs on a processor, 2 cores" in origin
    assert "test_a: 1 utterances could not be decoded (failed.tsv)" in page
    assert "\n\n\n" not in page


def test_a_normalized_rate_says_by_what(experiment):
    def add(name, normalizer):
        path = experiment / f"decode_asr/{name}/score/score.json"
        score = json.loads(path.read_text())
        path.write_text(
            json.dumps(score | {"normalized_wer": score["wer"], "normalizer": normalizer})
        )

    add("test_a", "gigaspeech")
    page = results_page(experiment)
    section = page.split("## Normalized WER\n\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| decode_asr")]
    assert len(rows) == 1
    assert cells(rows[0]) == "decode_asr/test_a 1 2 100.0 0.0 0.0 0.0 0.0 0.0 0.250".split()
    assert "References and hypotheses normalized by gigaspeech.\n" in section
    assert page.split("## WER")[1].count("| decode_asr") > 1 and "\n\n\n" not in page
    add("test_b", "spgispeech")
    assert "- decode_asr/test_b: normalized by spgispeech\n" in results_page(experiment)


def test_sets_of_one_language_each_are_averaged_with_their_like(tmp_path):
    for name, lang, hyp in (
        ("test_en", "en", "a b"), ("test_de", "de", "a"), ("dev_de", "de", ""), ("other", "en", "a")
    ):  # fmt: skip
        scores = {"wer": align({"u": "a b"}, {"u": hyp}, words)}
        lid = {"lid": {"utterances": 1, "correct": int(lang == "en")}}
        details = lid if name.startswith("test") else {}
        write_scores(tmp_path / "decode" / name / "score", scores, None, details, {"u": lang})
    scores = {"wer": align({"u": "a b", "v": "c"}, {"u": "a b"}, words)}
    folder = tmp_path / "decode" / "both" / "score"
    lid = {"lid": {"utterances": 2, "correct": 1}}
    write_scores(folder, scores, None, lid, {"u": "en", "v": "de"})
    page = results_page(tmp_path)
    table = page.split("## WER by language\n\n")[1].split("\n\n")[0].split("\n")
    rows = {cells(line)[0]: cells(line)[1:] for line in table[2:]}
    assert list(rows) == [
        "decode/both de", "decode/both en", "decode/both mean of 2",
        "decode/test_* de", "decode/test_* en", "decode/test_* mean of 2",
    ]  # fmt: skip
    assert rows["decode/test_* mean of 2"] == "2 4 75.0 0.0 25.0 0.0 25.0 50.0".split()
    assert rows["decode/both mean of 2"] == "2 3 50.0 0.0 50.0 0.0 50.0 50.0".split()
    found = page.split("## Languages found\n\n")[1].split("\n\n")[0].split("\n")[2:]
    assert [" ".join(cells(line)) for line in found] == [
        "decode/both 2 1 50.0", "decode/test_de 1 0 0.0", "decode/test_en 1 1 100.0",
        "decode/test_* 2 1 50.0",
    ]  # fmt: skip


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_nothing_to_show(tmp_path):
    with pytest.raises(UserError, match="run stages 12 and 13"):
        results_page(tmp_path)
