import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile

from mambaasr.bin.format_audio import main
from mambaasr.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def an4_train(test_data, tmp_path):
    """A data folder of 150 recorded utterances."""
    root = test_data / "an4/wav"
    files = sorted((root / "an4_clstk").rglob("*.wav"))[:150]
    folder = tmp_path / "it's, $(touch EVIL) data"
    folder.mkdir()
    for name, value in [("wav.scp", None), ("text", "WORD"), ("utt2spk", "speaker")]:
        lines = [f"{file.stem} {value or file}\n" for file in files]
        (folder / name).write_text("".join(lines))
    return folder


def start(*args):
    return subprocess.Popen(
        [sys.executable, "-m", "mambaasr.bin.format_audio", *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_run_goes_on(an4_train, tmp_path):
    out = tmp_path / "it's, $(touch EVIL) dump"
    process = start(an4_train, out, "--fs", 8000)
    try:
        deadline = time.monotonic() + 60
        while len(list(out.glob("audio/*/*.flac"))) < 20:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (out / "wav.scp").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*/*.flac")}
    assert 20 <= len(before) < 150
    assert all(soundfile.read(path)[0].size for path in before), "a half-written file looks whole"

    process = start(an4_train, out, "--fs", 8000)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"150 utterances in, 150 kept ({len(before)} were there already), 0 dropped" in said
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len([path for path in (out / "audio").rglob("*") if path.is_file()]) == 150
    assert not any(path.name.endswith("EVIL") for path in tmp_path.rglob("*"))
    assert not Path("EVIL").exists()


def test_killed_run_goes_on_after_its_last_archive(an4_train, tmp_path):
    out = tmp_path / "dump"
    process = start(an4_train, out, "--audio_format", "flac.ark")
    try:
        deadline = time.monotonic() + 60
        while not list(out.glob("audio/*.ark.json")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (out / "wav.scp").exists()
    before = {path: path.stat().st_mtime_ns for path in out.glob("audio/*.json")}
    assert 1 <= len(before) < 3, "of 150 utterances 50 lie in an archive"

    process = start(an4_train, out, "--audio_format", "flac.ark")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"150 kept ({50 * len(before)} were there already), 0 dropped" in said
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert len(list((out / "audio").iterdir())) == 6


def test_options(an4_train, tmp_path, capsys):
    with (an4_train / "wav.scp").open() as stream:
        first = stream.readline().split(maxsplit=1)[0]
    text = (an4_train / "wav.scp").read_text().splitlines(keepends=True)[:3]
    text[0] = f"{first} {tmp_path}/nowhere.wav\n"
    (an4_train / "wav.scp").write_text("".join(text))
    for name in ("text", "utt2spk"):
        lines = (an4_train / name).read_text().splitlines(keepends=True)[:3]
        (an4_train / name).write_text("".join(lines))
    out = tmp_path / "dump"
    with pytest.raises(UserError, match="nowhere.wav.*--bad_audio skip"):
        main([str(an4_train), str(out), "--bad_audio", "stop"])
    assert main([str(an4_train), str(out), "--audio_format", "wav"]) == 0
    assert len((out / "text").read_text().splitlines()) == 2
    assert main([str(an4_train), str(out), "--keep_bad"]) == 0
    assert len((out / "text").read_text().splitlines()) == 3
    assert len((out / "wav.scp").read_text().splitlines()) == 2
    assert "count as deleted" in capsys.readouterr().out
