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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--batch_size", "2"], "only 1"),
        (["--nj", "0"], "--nj must be at least 1"),
        (["--nbest", "30"], "needs a --beam_size of at least 30"),
        (["--key_file", "nowhere"], "nowhere: cannot be read"),
        (["--data_path_and_name_and_type", "x,speech,sound"], "one source"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: no such config"),
    ],
)
def test_bad_options(command, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        main([*command, "--output_dir", str(tmp_path), *options])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_such: 1\n", "line 1: there is no option `no_such`; allowed: .*beam_size"),
        ("beam_size: many\n", "`beam_size` must be int"),
        ("dtype: float8\n", "dtype `float8` is unknown"),
        ("beam_size: 1\nbeam_size: 2\n", "twice"),
    ],
)
def test_bad_config(command, tmp_path, text, message):
    config = tmp_path / "decode.yaml"
    config.write_text(text)
    with pytest.raises(UserError, match=message):
        main([*command, "--output_dir", str(tmp_path), "--config", str(config)])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{scp},text,text", "expected WAV_SCP,speech,sound"),
        ("{empty},speech,sound", "no audio is listed"),
        ("{pipe},speech,sound", "pipe:1: u1: a pipe, and commands in data files are not run"),
    ],
)
def test_bad_audio_lists(command, tmp_path, source, message):
    (tmp_path / "empty").write_text("")
    (tmp_path / "pipe").write_text(f"u1 touch {tmp_path}/ran |\n")
    names = {"scp": command[3].rsplit(",", 2)[0]}
    names |= {"empty": tmp_path / "empty", "pipe": tmp_path / "pipe"}
    options = ["--data_path_and_name_and_type", source.format(**names)]
    with pytest.raises(UserError, match=message):
        main([*command[:2], *options, "--output_dir", str(tmp_path / "out")])
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


def test_config_may_hold_what_is_required(command, tmp_path):
    config = tmp_path / "all.yaml"
    config.write_text(
        f"asr_model_file: {command[1]}\noutput_dir: {tmp_path}\n"
        "data_path_and_name_and_type: ['a,speech,sound']\nlog_level: warning\n"
    )
    args = asr_inference.parse(["--config", str(config), "--output_dir", "x"])
    assert args.output_dir == "x" and args.asr_model_file == command[1]
    assert args.log_level == "WARNING"
