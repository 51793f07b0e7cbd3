"""The plan of a table, and the runs of its rows: failures, signals, what is printed."""

import os
import re
import signal
import threading
import time

import pytest

from mambaasr.bin.table import main
from mambaasr.errors import UserError
from mambaasr.tables.read import read_table
from mambaasr.tables.run import plan


def calls(recipe):
    """Return the --nbpe of every call of run.sh."""
    lines = (recipe / "calls").read_text().splitlines()
    return [re.search(r"--nbpe (\d+)", line)[1] for line in lines]


@pytest.fixture
def rows(recipe, monkeypatch):
    """Make a table of rows, each with a number of tokens; the configs' check takes seconds."""
    monkeypatch.setattr("mambaasr.tables.run.training_config", lambda o, build: None)

    def write(*numbers):
        lines = [f"  - {{key: row{number}, options: {{nbpe: {number}}}}}" for number in numbers]
        text = "\n".join(["title: Rows", "columns: [test WER]", "rows:", *lines])
        (recipe / "tables/x.yaml").write_text(f"{text}\n")

    return write


def test_a_row_that_fails_does_not_stop_the_others(recipe, rows, capfd):
    rows(7, 9)
    assert main(["--run", "tables/x.yaml"]) == 1
    assert calls(recipe) == ["7", "9"]
    out, err = capfd.readouterr()
    said = "\n======== row7\n======== row7: failed with exit status 3\n\n======== row9\n\n# Rows\n"
    assert out.startswith(said)
    assert err == "error: 1 failed: row7;\n"


def test_it_stops_at_a_failure_when_asked_to(recipe, rows, capfd):
    rows(9, 7, 10)
    assert main(["--run", "tables/x.yaml", "--keep_going", "false"]) == 1
    assert calls(recipe) == ["9", "7"]
    assert main(["--run", "tables/x.yaml", "--rows", "row9,row10"]) == 0
    assert calls(recipe)[2:] == ["9", "10"]
    assert "# Rows" in capfd.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_first(recipe, rows, capfd, number):
    def stop():
        while not (recipe / "waiting").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    rows(8, 9)
    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        main(["--run", "tables/x.yaml"])
    thread.join()
    assert number == signal.SIGINT or caught.value.code == 143
    assert (recipe / "stopped").read_text() == "orderly\n"
    assert calls(recipe) == ["8"]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_the_plan_is_written_word_by_word(recipe):
    words = ["tables/x.yaml", "--rows", "mamba", "--asr_args", "--init 'normal'", "--plan", "p"]
    assert main(words) == 0
    fields = (recipe / "p").read_bytes().decode().split("\0")
    name, count, words = fields[0], int(fields[1]) - 1, fields[3:]
    assert fields[2] == "./run.sh"
    options = dict(zip(words[:count:2], words[1:count:2], strict=True))
    assert name == "mamba"
    assert options["--encoder"] == "conf/encoder/mamba.yaml"
    assert options["--asr_args"] == "--max_epoch 3 --init 'normal'"
    assert words[count] == "mamba (lm)"
    assert not (recipe / "calls").exists()


def test_where_nothing_is_decoded_it_stops_after_the_training(recipe, rows):
    rows(9)
    path = recipe / "tables/x.yaml"
    path.write_text(path.read_text().replace("test WER", "training hours"))
    ((_, command),) = plan(read_table(path))
    assert command[-2:] == ["--stop_stage", "11"]
    ((_, command),) = plan(read_table(path, given={"stop_stage": "10"}))
    assert command.count("--stop_stage") == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "encoder: mamba}",
            "encoder: wide}",
            "row `mamba`: .*wide.yaml: line 3.*no option `widht`",
        ),
        ("use_lm: true", "inference_args: --ctc_wieght 0.3", "row `conformer`: .*ctc_wieght"),
        ("use_lm: true", "use_lm: true, lm_config: train_lm", "train_lm.yaml.*`untis`"),
    ],
)
def test_a_mistake_of_any_part_is_named_before_anything_runs(recipe, edit, old, new, message):
    (recipe / "conf/encoder/wide.yaml").write_text("encoder: mamba\nencoder_conf:\n  widht: 3\n")
    (recipe / "conf/train_lm.yaml").write_text("lm: mamba\nlm_conf:\n  untis: 3\n")
    edit(old, new)
    with pytest.raises(UserError, match=message):
        main(["--run", "tables/x.yaml"])
    assert not (recipe / "calls").exists()


def test_mistakes_on_the_command_line_are_named(recipe):
    for words, message in (
        (["--rows", ","], "tables/x.yaml: --rows is empty; there are: conformer, mamba, whisper"),
        (["--rows", "mamba,b"], "tables/x.yaml: no row b; there are: conformer, mamba, whisper"),
        (["--scale", "tiny"], "tables/x.yaml: there is no scale `tiny`; there are: full, small"),
        (["--encodr", "x"], "unknown option --encodr (did you mean --encoder"),
        (["--asr_tag", "x"], "--asr_tag: the table names its experiments itself"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            main(["tables/x.yaml", *words])


def test_help_ends_with_the_options_of_the_recipe(recipe, capfd):
    (recipe / "run.sh").write_text("#!/bin/sh\necho options of this recipe\n")
    assert main(["--run", "--help"]) == 0
    out = capfd.readouterr().out
    assert "--keep_going" in out and out.endswith("options of this recipe\n")
