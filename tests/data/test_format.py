import errno
import os

import numpy as np
import pytest
import soundfile

from mambaasr.data import format as data_format
from mambaasr.data.dropped import read_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.errors import UserError


def test_recorded_speech(an4, tmp_path):
    summary = format_folder(an4, tmp_path / "dump", 16000, nj=2)
    assert "12 utterances in, 12 kept (0 were there already), 0 dropped" in summary
    before, after = DataFolder.read(an4), DataFolder.read(tmp_path / "dump")
    assert (after.text, after.utt2spk) == (before.text, before.utt2spk)
    for utt in before.utterances:
        expected, _ = soundfile.read(before.wav[utt], dtype="int16")
        samples, rate = soundfile.read(after.wav[utt], dtype="int16")
        np.testing.assert_array_equal(samples, expected)
        assert rate == 16000 and after.utt2num_samples[utt] == len(samples)
    assert read_report(tmp_path / "dump") == []


def test_segments_are_cut(sines, tmp_path):
    path = sines()
    (path / "segments").write_text(
        "utt0 rec 0 0.25\nutt1 rec 0.25 0.5\nutt2 rec 0.5 -1\nutt3 rec 3 4\n"
    )
    (path / "wav.scp").write_text(f"rec {tmp_path}/corpus/0.wav\n")
    assert "3 kept" in format_folder(path, tmp_path / "dump", 16000)
    folder = DataFolder.read(tmp_path / "dump")
    assert folder.segments is None and not (tmp_path / "dump/segments").exists()
    assert folder.utt2num_samples == {"utt0": 4000, "utt1": 4000, "utt2": 8000}
    whole, _ = soundfile.read(tmp_path / "corpus/0.wav", dtype="int16")
    part, _ = soundfile.read(folder.wav["utt1"], dtype="int16")
    np.testing.assert_array_equal(part, whole[4000:8000])
    (row,) = read_report(tmp_path / "dump")
    assert (row.utt, row.where) == ("utt3", f"{path}/segments:4")
    assert "leaves the recording" in row.reason


def times(folder):
    return {
        utt: os.stat(path).st_mtime_ns for utt, path in sorted(DataFolder.read(folder).wav.items())
    }


def test_rerun_makes_only_what_is_not_there_or_not_right(sines, tmp_path):
    path, out = sines(n=6), tmp_path / "dump"
    format_folder(path, out, 16000)
    first = times(out)
    assert "6 kept (6 were there already)" in format_folder(path, out, 16000)
    assert times(out) == first

    files = DataFolder.read(out).wav
    os.unlink(files["utt0"])
    with open(files["utt1"], "r+b") as stream:
        stream.truncate(os.path.getsize(files["utt1"]) - 20)
    wave, _ = soundfile.read(tmp_path / "corpus/2.wav")
    soundfile.write(tmp_path / "corpus/2.wav", wave[:8000], 16000)
    assert "6 kept (3 were there already)" in format_folder(path, out, 16000)
    changed = {utt for utt, time in times(out).items() if time != first[utt]}
    assert changed == {"utt0", "utt1", "utt2"}
    assert DataFolder.read(out).utt2num_samples["utt2"] == 8000
    assert "6 kept (0 were there already)" in format_folder(path, out, 8000)


def test_other_code_makes_all_anew_and_equal_audio_keeps_its_time(sines, tmp_path, monkeypatch):
    path, out = sines(n=3), tmp_path / "dump"
    format_folder(path, out, 16000)
    first = times(out)
    monkeypatch.setattr(data_format, "code_of", lambda command: {"mambaasr/data/format.py": "2"})
    assert "3 kept (0 were there already)" in format_folder(path, out, 16000)
    assert times(out) == first
    assert "3 kept (3 were there already)" in format_folder(path, out, 16000)
    monkeypatch.setattr(data_format, "code_of", lambda command: {"mambaasr/data/format.py": "3"})
    read = data_format.read_audio
    quieter = {f"{tmp_path}/corpus/1.wav": 0.5}

    def mended(source, *stretch):
        samples, rate = read(source, *stretch)
        return samples * quieter.get(str(source), 1.0), rate

    monkeypatch.setattr(data_format, "read_audio", mended)
    assert "3 kept (0 were there already)" in format_folder(path, out, 16000)
    assert {utt for utt, time in times(out).items() if time != first[utt]} == {"utt1"}


def test_leftovers_of_a_kill_are_removed(sines, tmp_path):
    path, out = sines(n=1), tmp_path / "dump"
    left = out / "audio/07/.utt.flac.k3j4h5"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    format_folder(path, out, 16000)
    assert not left.exists()
    assert len([p for p in (out / "audio").rglob("*") if p.is_file()]) == 1


def break_two(tmp_path):
    path = tmp_path / "corpus/1.wav"
    path.write_bytes(path.read_bytes()[:5000])
    (tmp_path / "corpus/3.wav").unlink()


def test_bad_audio_is_skipped_and_named(sines, tmp_path):
    path, out = sines(), tmp_path / "dump"
    break_two(tmp_path)
    summary = format_folder(path, out, 16000)
    assert "4 utterances in, 2 kept" in summary and "2 dropped" in summary
    assert str(out / "report.tsv") in summary
    folder = DataFolder.read(out)
    assert folder.utterances == sorted(folder.text) == ["utt0", "utt2"]
    rows = read_report(out)
    assert [(row.utt, row.where) for row in rows] == [
        ("utt1", f"{path}/wav.scp:2"),
        ("utt3", f"{path}/wav.scp:4"),
    ]
    assert "truncated" in rows[0].reason and "No such file" in rows[1].reason


def test_a_test_set_keeps_its_references_once_and_again(sines, tmp_path):
    path, out, again = sines(), tmp_path / "dump", tmp_path / "again"
    break_two(tmp_path)
    assert "count as deleted" in format_folder(path, out, 16000, keep_references=True)
    summary = format_folder(out, again, 8000, keep_references=True)
    assert "4 utterances in, 2 kept" in summary and "2 dropped" in summary
    for place in (out, again):
        folder = DataFolder.read(place)
        assert folder.utterances == ["utt0", "utt2"]
        assert sorted(folder.text) == sorted(folder.utt2spk) == ["utt0", "utt1", "utt2", "utt3"]
        assert [row.utt for row in read_report(place)] == ["utt1", "utt3"]
    with pytest.raises(UserError, match=r"wav.scp:2: utt1: .*truncated.*2 such utterances"):
        format_folder(path, tmp_path / "stop", 16000, bad_audio="stop")
    assert not (tmp_path / "stop/wav.scp").exists()


def test_all_audio_bad(sines, tmp_path):
    path = sines(n=1)
    (tmp_path / "corpus/0.wav").write_bytes(b"")
    for keep in (False, True):
        with pytest.raises(UserError, match="no utterance can be used.*the file is empty"):
            format_folder(path, tmp_path / "dump", 16000, keep_references=keep)


def test_full_disk_then_room_again(sines, tmp_path, monkeypatch):
    path, out = sines(), tmp_path / "dump"
    calls = []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="utt2.flac: cannot be written: No space left"):
            format_folder(path, out, 16000)
    assert not (out / "wav.scp").exists()
    assert "4 kept (2 were there already)" in format_folder(path, out, 16000)


def test_names_that_a_shell_would_run(sines, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sines(n=1)
    odd = 'it\'s "odd", $(touch EVIL) `touch EVIL`; touch EVIL'
    os.makedirs(odd)
    os.rename("corpus/0.wav", f"{odd}/$(touch EVIL).wav")
    os.rename("data/train", f"{odd}/data")
    with open(f"{odd}/data/wav.scp", "w") as stream:
        stream.write(f"utt0 {odd}/$(touch EVIL).wav\n")
    assert "1 kept" in format_folder(f"{odd}/data", f"{odd}/dump", 16000)
    folder = DataFolder.read(f"{odd}/dump")
    assert folder.wav["utt0"].startswith(odd) and soundfile.info(folder.wav["utt0"]).frames == 16000
    assert not any("EVIL" == name for _, _, names in os.walk(tmp_path) for name in names)


def test_ids_that_are_no_file_names(sines, tmp_path):
    path = sines(n=3)
    names = {"utt0": ".x.flac.y", "utt1": "a/b", "utt2": "a%2Fb"}
    for name in ("wav.scp", "text", "utt2spk"):
        content = (path / name).read_text()
        for old, new in names.items():
            content = content.replace(f"{old} ", f"{new} ")
        (path / name).write_text(content)
    format_folder(path, tmp_path / "dump", 16000)
    assert "3 were there already" in format_folder(path, tmp_path / "dump", 16000)
    folder = DataFolder.read(tmp_path / "dump")
    assert len({os.path.realpath(p) for p in folder.wav.values()}) == 3
    assert all(
        os.path.realpath(p).startswith(f"{tmp_path}/dump/audio/") for p in folder.wav.values()
    )
