"""Tests of python -m mambaasr.bin.asr_inference."""

import json
import signal
import time

import pytest
from forked import Command
from tiny_asr import OURS, an4, make_experiment

from mambaasr.bin import asr_inference
from mambaasr.bin.asr_inference import main
from mambaasr.errors import UserError

OPTIONS = ["--beam_size", "2", "--maxlenratio", "0.1", "--chunk_size", "1"]


@pytest.fixture(scope="module")
def command(tmp_path_factory, test_data):
    """The options that name a tiny model and ten utterances; paths hold spaces and commas."""
    folder = tmp_path_factory.mktemp("a, b $(c)")
    _, weights = make_experiment(folder / "exp")
    speech = an4(test_data, 10)
    scp = folder / "wav.scp"
    scp.write_text("".join(f"{utt} {path}\n" for utt, path in speech.items()))
    triple = f"{scp},speech,sound"
    return ["--asr_model_file", str(weights), "--data_path_and_name_and_type", triple]


def test_decodes_with_a_config_and_a_key_file(command, tmp_path, capsys):
    config = tmp_path / "decode.yaml"
    config.write_text("beam_size: 9\nmaxlenratio: 0.1\nctc_weight: 0.3\nnormalize_length: true\n")
    keys = tmp_path / "keys"
    keys.write_text("cen8-fcaw-b NO MATTER WHAT\ncen1-fcaw-b\n")
    out = tmp_path / "out"
    options = ["--config", str(config), "--key_file", str(keys), "--beam_size", "2"]
    assert main([*command, *options, "--output_dir", str(out)]) == 0
    assert [line.split()[0] for line in (out / "text").open()] == ["cen8-fcaw-b", "cen1-fcaw-b"]
    used = json.loads((out / "decode.json").read_text())["options"]
    assert (used["beam_size"], used["ctc_weight"], used["normalize_length"]) == (2, 0.3, True)
    assert "2 utterances, 0 failed" in capsys.readouterr().out


def test_kill_and_go_on(command, tmp_path):
    """A decoding that was killed in the middle goes on, and ends as one that was not."""

    def run(out):
        return Command("asr_inference", [*command, *OPTIONS, "--output_dir", out], tmp_path)

    out, chunks = tmp_path / "out", tmp_path / "out" / "chunks"
    process = run(out)
    end = time.monotonic() + 300
    while not (chunks.is_dir() and len(list(chunks.glob("*.json"))) >= 2):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path.name: path.stat().st_mtime_ns for path in chunks.glob("*.json")}
    assert 2 <= len(kept) < 10
    assert not (out / "text").exists()

    code, log = run(out).wait()
    assert code == 0, log
    assert f"{len(kept)} of 10 chunks are decoded already" in log
    assert all((chunks / name).stat().st_mtime_ns == when for name, when in kept.items())
    assert "Warning" not in log
    assert main([*command, *OPTIONS, "--output_dir", str(tmp_path / "whole")]) == 0
    for name in ("text", "token", "token_int"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text()
    assert (out / "text").read_text().count("\n") == 10


def test_mistakes(command, tmp_path):
    (tmp_path / "pipe").write_text(f"u1 touch {tmp_path}/ran |\n")
    pipe = ["--data_path_and_name_and_type", f"{tmp_path}/pipe,speech,sound"]
    for options, message in (
        ([*command, "--nj", "0"], "--nj must be at least 1"),
        ([*command, "--nbest", "30"], "needs a --beam_size of at least 30"),
        ([*command, "--key_file", "nowhere"], "nowhere: cannot be read"),
        ([*command, *command[2:]], "one source"),
        ([*command[:2], *pipe], "pipe:1: u1: a pipe, and commands in data files are not run"),
    ):
        with pytest.raises(UserError, match=message):
            main([*options, "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "ran").exists()


def test_every_dtype_decodes(command, tmp_path):
    """With our classes, on the CPU, and to the same score."""
    _, weights = make_experiment(tmp_path / "exp", **OURS)
    keys = tmp_path / "keys"
    keys.write_text("cen8-fcaw-b\n")
    options = ["--asr_model_file", str(weights), *command[2:], "--key_file", str(keys)]
    options += ["--beam_size", "2", "--maxlenratio", "-6"]
    (choices,) = [a.choices for a in asr_inference.get_parser()._actions if a.dest == "dtype"]
    scores = {}
    for dtype in choices:
        out = tmp_path / dtype
        assert main([*options, "--dtype", dtype, "--output_dir", str(out)]) == 0
        assert len((out / "token").read_text().split()) == 7
        scores[dtype] = float((out / "1best_recog" / "score").read_text().split()[1])
    assert scores.keys() >= {"float32", "float64"}
    assert list(scores.values()) == pytest.approx([scores["float64"]] * len(scores), rel=1e-3)
