"""The plan of a table, and the runs of its rows: failures, signals, what is printed."""

import json
import os
import re
import signal
import threading
import time

import pytest

from mambaasr.bin.table import main
from mambaasr.errors import UserError
from mambaasr.tables.read import read_table
from mambaasr.tables.run import Call, plan, run_calls


def called(recipe):
    """Return the --nbpe of every call of run.sh."""
    lines = (recipe / "calls").read_text().splitlines()
    return [line.removeprefix("--nbpe ") for line in lines]


def calls(*numbers):
    return [Call(f"row {number}", ["./run.sh", "--nbpe", str(number)]) for number in numbers]


def test_a_row_that_fails_does_not_stop_the_others(recipe, capfd):
    assert run_calls(calls(7, 9)) == ["row 7"]
    assert called(recipe) == ["7", "9"]
    said = "\n======== row 7\n======== row 7: failed with exit status 3\n\n======== row 9\n"
    assert capfd.readouterr().out == said


def test_it_stops_at_a_failure_when_asked_to(recipe):
    assert run_calls(calls(9, 7, 10), keep_going=False) == ["row 7"]
    assert called(recipe) == ["9", "7"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_first(recipe, number):
    def stop():
        while not (recipe / "waiting").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    handler = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises((SystemExit, KeyboardInterrupt)) as caught:
        run_calls(calls(8, 9))
    thread.join()
    assert number == signal.SIGINT or caught.value.code == 143
    assert (recipe / "stopped").read_text() == "orderly\n"
    assert called(recipe) == ["8"]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_the_plan_is_a_call_for_each_run(recipe, monkeypatch):
    monkeypatch.setattr("mambaasr.tables.run.load_configs", lambda o, build, decodes: None)
    words = ["tables/x.yaml", "--rows", "mamba", "--asr_args", "--init 'normal'", "--plan", "p"]
    assert main(words) == 0
    (name, command), (with_lm, _) = json.loads((recipe / "p").read_text())
    assert (name, with_lm) == ("mamba", "mamba (lm)")
    assert command[0] == "./run.sh"
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--encoder"] == "conf/encoder/mamba.yaml"
    assert options["--asr_args"] == "--max_epoch 3 --init 'normal'"
    assert not (recipe / "calls").exists()


def test_where_nothing_is_decoded_it_stops_after_the_training(recipe, monkeypatch):
    monkeypatch.setattr("mambaasr.tables.run.load_configs", lambda o, build, decodes: None)
    path = recipe / "tables/x.yaml"
    path.write_text("title: x\ncolumns: [training hours]\nrows: [{key: a, options: {nbpe: 9}}]\n")
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
        plan(read_table("tables/x.yaml"))


def test_mistakes_on_the_command_line_are_named(recipe):
    for words, message in (
        (
            ["--rows", ","],
            "tables/x.yaml: there is no row ``; there are: conformer, mamba, whisper",
        ),
        (
            ["--rows", "mamba,b"],
            "tables/x.yaml: there is no row `b`; there are: conformer, mamba, whisper",
        ),
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
