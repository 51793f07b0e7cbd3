"""Help and errors of a training's command; what it says when it is stopped."""

import os
import signal
import subprocess
import sys

import pytest
from forked import Command

from mambaasr.bin import asr_train
from mambaasr.registry import CLASSES


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mambaasr.bin.asr_train", *arguments],
        capture_output=True, text=True,
    )  # fmt: skip


def test_help_names_our_classes():
    result = run("--help")
    assert result.returncode == 0 and result.stderr == ""
    for names in CLASSES.values():
        for name in names:
            assert name in result.stdout
    assert "--help_all" in result.stdout


def test_an_error_is_one_line(tmp_path):
    code, printed = Command("asr_train", ["--encoder", "conmanba"], tmp_path).wait()
    assert code == 2 and printed.startswith("error: ") and printed.count("\n") == 1
    assert "conmamba" in printed


def test_all_of_espnets_options_are_listed(capsys):
    assert asr_train.main(["--help_all"]) == 0
    listed = capsys.readouterr().out
    assert "--encoder_conf" in listed and "conmamba" in listed and "--dist_backend" in listed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_only_the_main_process_speaks_when_it_is_stopped(capsys, monkeypatch, number):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        asr_train._stop(os.getpid(), "; and so on", number, None)
    assert caught.value.code == 128 + number
    assert capsys.readouterr().err == "stopped; and so on\n"
    # Of the processes that load data, Ctrl-C is none of the business.
    if number == signal.SIGINT:
        asr_train._stop(os.getppid(), "; and so on", number, None)
    else:
        with pytest.raises(SystemExit):
            asr_train._stop(os.getppid(), "; and so on", number, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("collect", ["y", "no"])
def test_advice_is_for_trainings(monkeypatch, collect):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    from mambaasr.errors import UserError

    with pytest.raises(UserError, match="--output_dir"):
        asr_train.main(["--token_list", "x", "--collect_stats", collect])
    advice = handlers[signal.SIGTERM].args[1]
    assert ("--resume true" in advice) == (collect == "no")
