"""What is read from experiments, and the page that shows it."""

import json

import pytest

from mambaasr.bin.table import main
from mambaasr.config import dump
from mambaasr.fingerprint import fingerprint, fingerprint_bytes
from mambaasr.tables.measure import measure
from mambaasr.tables.page import table_page
from mambaasr.tables.read import read_table

EPOCHS = """2026 (trainer:394) INFO: 1epoch results: [train] loss=1.5, time=1 hour, 3 minutes and 1.5 seconds, total_count=9, [valid] loss=4.4, time=28.5 seconds, total_count=1
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=30 minutes, [valid] time=30 seconds
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=29 minutes, [valid] time=1 minute and 0.0 seconds
"""  # noqa: E501
BOTH = {"test": (1.0, 1.0), "dev": (9.0, 2.0)}


def pretend(run, rates, config=None):
    """Write what a finished training and decoding leave behind."""
    stages = run.exp / ".stages"
    stages.mkdir(parents=True, exist_ok=True)
    made = fingerprint_bytes(dump(config or run.config).encode())
    inputs = {str(stages / "train.yaml"): made}
    (stages / "11_training.json").write_text(json.dumps({"options": {}, "inputs": inputs}))
    (run.exp / "train.log").write_text(EPOCHS)
    starts = [{"commit": "abc", "clean": clean} for clean in (True, run.seed != 2)]
    (run.exp / "provenance.json").write_text(json.dumps(starts))
    for name, (wer, cer) in rates.items():
        place = run.exp / run.inference_tag / name
        (place / "score").mkdir(parents=True)
        (place / ".stages").mkdir()
        (run.exp / "valid.acc.ave.pth").write_text("weights")
        (place / "text").write_text("a b\n")
        for step, read in (
            ("12_decoding_of", run.exp / "valid.acc.ave.pth"),
            ("13_scoring_of", place / "text"),
        ):
            marker = {"options": {}, "inputs": {str(read): fingerprint(read), "dump/gone": "x"}}
            (place / f".stages/{step}_{name}.json").write_text(json.dumps(marker))
        score = {"wer": {"error_rate": wer}, "cer": {"error_rate": cer}}
        (place / "score/score.json").write_text(json.dumps(score))
        decoding = {"parameters": 34_000_000, "commit": "abc", "audio_seconds": 100.0}
        decoding["decoding_seconds"] = 5.0 if name == "test" else 15.0
        (place / "decode.json").write_text(json.dumps(decoding))


def cells(page):
    """Return the cells of a page's table."""
    lines = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def mamba(recipe):
    """The table, its row `mamba`, and the plain run of it and that with a language model."""
    table = read_table("tables/x.yaml")
    row = table.rows[1]
    return table, row, *row.runs


def test_nothing_measured_says_what_to_run(recipe):
    text = table_page(read_table("tables/x.yaml"), ["../table.sh", "tables/x.yaml"])
    published = ["Conformer", "published", "34", "6.3", "unknown", "5.00", "unknown", "", "", ""]
    assert cells(text)[2] == published
    assert cells(text)[3] == ["", "measured", *"-----", "-", "none of 2", "-"]
    assert cells(text)[-1][:2] == ["Whisper", "published"]
    assert (
        "Conformer: seed 1: not run; seed 2: not run: `../table.sh tables/x.yaml --rows conf"
        in text
    )
    assert "--rows whisper" not in text
    assert "- Whisper: Not ours." in text and "- Published figures: table 7 (Whisper)" in text


def test_published_measured_difference(recipe):
    table = read_table("tables/x.yaml")
    row = table.rows[0]
    for run, wer in zip(row.runs, (6.0, 5.5, 7.0, 5.5), strict=True):
        pretend(run, {"test": (wer, 1.0), "dev": (9.0, 2.0)})
    found = measure(table, row)
    assert found.values["test WER"] == [6.0, 7.0] and found.values["dev CER"] == [2.0, 2.0]
    assert found.values["parameters"] == [34.0, 34.0] and found.missing == []
    assert found.values["RTF"] == [0.1, 0.1]
    _, _, published, measured, difference, *_ = cells(table_page(table, ["t"]))
    assert published[:7] == ["Conformer", "published", "34", "6.3", "unknown", "5.00", "unknown"]
    assert measured[1:7] == ["measured", "34.00", "6.50 ± 0.71", "2.00", "5.50", "0.100"]
    assert measured[7:] == ["93.5 min", "1, 2", "trained abc, abc (dirty); decoded abc"]
    assert difference[1:7] == ["difference", "+0.00", "+0.20", "-", "+0.50", "-"]


def test_what_was_decoded_before_another_training_does_not_count(mamba):
    table, row, plain, lm = mamba
    pretend(plain, BOTH)
    pretend(lm, BOTH)
    assert measure(table, row).missing == []
    (plain.exp / plain.inference_tag / "dev/text").write_text("c d\n")
    found = measure(table, row)
    assert any("dev was decoded or scored before" in each for each in found.missing)
    assert "dev CER" not in found.values and found.values["test WER"] == [1.0]
    (plain.exp / "valid.acc.ave.pth").write_text("other weights")
    found = measure(table, row)
    assert found.values == {}
    assert any("before" in each and "valid.acc.ave.pth changed" in each for each in found.missing)
    # A model that was removed says nothing against its figures.
    (plain.exp / "valid.acc.ave.pth").unlink()
    assert measure(table, row).values["test WER"] == [1.0]
    (plain.exp / plain.inference_tag / "test/.stages/13_scoring_of_test.json").unlink()
    found = measure(table, row)
    assert "test is not scored" in found.missing and "test WER" not in found.values


def test_what_other_blocks_made_does_not_count(mamba):
    table, row, *runs = mamba
    for run in runs:
        pretend(run, BOTH, config={"encoder": "conformer"})
    found = measure(table, row)
    assert found.values == {} and "trained with other blocks" in found.missing[0]


def test_what_is_missing_of_a_row_is_named(mamba):
    table, row, plain, _ = mamba
    pretend(plain, {"test": (1.0, 1.0)})
    assert measure(table, row).missing == ["no dev CER", "no test WER, lm"]


def test_the_mean_over_languages_is_a_column_of_its_own(edit):
    edit("dev CER", "test macro CER")
    edit("    published", "    # published")
    edit("    published", "    # published")
    table = read_table("tables/x.yaml")
    run = table.rows[1].runs[0]
    pretend(run, {"test": (1.0, 2.0)})
    assert "no test macro CER" in measure(table, table.rows[1]).missing  # one language
    file = run.exp / run.inference_tag / "test/score/score.json"
    score = json.loads(file.read_text())
    score["cer"]["macro"] = {"error_rate": 3.0}
    file.write_text(json.dumps(score))
    assert measure(table, table.rows[1]).values["test macro CER"] == [3.0]


def test_one_language_of_a_set(edit):
    edit("dev CER", "test CER of cy")
    edit("    published", "    # published")
    edit("    published", "    # published")
    table = read_table("tables/x.yaml")
    run = table.rows[1].runs[0]
    pretend(run, BOTH)
    assert "no test CER of cy" in measure(table, table.rows[1]).missing
    file = run.exp / run.inference_tag / "test/score/score.json"
    score = json.loads(file.read_text())
    score["cer"]["languages"] = {"cy": {"error_rate": 4.0}, "de": {"error_rate": 5.0}}
    file.write_text(json.dumps(score))
    assert measure(table, table.rows[1]).values["test CER of cy"] == [4.0]


def test_languages_found_only_where_a_model_finds_them(edit):
    edit("dev CER", "test LID accuracy")
    edit("    published", "    # published")
    edit("    published", "    # published")
    table = read_table("tables/x.yaml")
    run = table.rows[1].runs[0]
    pretend(run, BOTH)
    found = measure(table, table.rows[1])
    assert "test LID accuracy" not in found.values
    assert not any("LID" in problem for problem in found.missing)
    path = run.exp / run.inference_tag / "test/score/score.json"
    score = json.loads(path.read_text()) | {"lid": {"utterances": 8, "correct": 6}}
    path.write_text(json.dumps(score))
    assert measure(table, table.rows[1]).values["test LID accuracy"] == [75.0]


def test_the_normalized_rate_is_a_column_of_its_own(edit):
    edit("dev CER", "test normalized WER")
    edit("    published", "    # published")
    edit("    published", "    # published")
    table = read_table("tables/x.yaml")
    run = table.rows[1].runs[0]
    pretend(run, {"test": (1.0, 2.0)})
    assert "no test normalized WER" in measure(table, table.rows[1]).missing
    file = run.exp / run.inference_tag / "test/score/score.json"
    score = json.loads(file.read_text())
    file.write_text(json.dumps(score | {"normalized_wer": {"error_rate": 4.0}}))
    assert measure(table, table.rows[1]).values["test normalized WER"] == [4.0]


def test_a_table_of_times_reads_logs_alone(recipe):
    (recipe / "tables/x.yaml").write_text(
        "title: Times\ncolumns: [training hours, parameters]\nrows:\n"
        "  - {key: mamba, options: {encoder: mamba}}\n"
    )
    table = read_table("tables/x.yaml")
    (run,) = table.rows[0].runs
    pretend(run, {})
    with open(run.exp / "train.log", "a") as log:
        log.write("    Total Number of model parameters: 31.56 M\n")
    found = measure(table, table.rows[0])
    assert found.values == {"training hours": [5610 / 3600], "parameters": [31.56]}
    assert found.missing == []


def test_it_prints_and_writes(recipe, capsys):
    assert main(["tables/x.yaml", "--rows", "whisper", "--output", "t.md"]) == 0
    text = capsys.readouterr().out
    assert (recipe / "t.md").read_text() == text
    assert "# Encoders" in text and "Whisper" in text and "Conformer" not in text
