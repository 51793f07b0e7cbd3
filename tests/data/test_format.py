import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from mambaasr.data import format as data_format
from mambaasr.data.audio import AudioError, audio_problems, read_sound
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
    read = data_format.read_sound
    quieter = {f"{tmp_path}/corpus/1.wav": 0.5}

    def mended(source, *stretch):
        sound = read(source, *stretch)
        return replace(sound, samples=sound.samples * quieter.get(str(source), 1.0))

    monkeypatch.setattr(data_format, "read_sound", mended)
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
    calls, rename = [], os.replace

    def full(old, new):
        calls.append(new)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
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


def test_the_disk_gets_a_set_at_once(sines, tmp_path, monkeypatch):
    path, order = sines(n=8), []
    rename = os.replace

    def renamed(old, new):
        order.append(os.path.basename(new))
        rename(old, new)

    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "sync", lambda: order.append("sync"))
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    format_folder(path, tmp_path / "dump", 16000)
    assert order.count("sync") == 1 and len(synced) < 8
    assert sorted(order[: order.index("sync")]) == [f"utt{i}.flac" for i in range(8)]
    assert order.index("wav.scp") > order.index("sync")


def calls_of_two_speakers(path, tmp_path):
    """Make three of a folder's four recordings stereo: a call, a copy, an inverted pair."""
    waves = [soundfile.read(tmp_path / f"corpus/{i}.wav")[0] for i in range(4)]
    for i, right in ((0, waves[3]), (1, waves[1] * 1.001), (2, -waves[2])):
        stereo = np.stack([waves[i], right], 1)
        soundfile.write(tmp_path / f"corpus/{i}.wav", stereo, 16000, subtype="FLOAT")
    return waves


def test_channels_that_differ_are_reported_and_chosen(sines, tmp_path, caplog):
    path, out = sines(), tmp_path / "dump"
    waves = calls_of_two_speakers(path, tmp_path)
    for _ in range(2):  # a rerun, too, that keeps the files
        caplog.clear()
        format_folder(path, out, 16000)
        first, second = caplog.messages
        assert "channels that differ were averaged in 1 of 4 (first utt0)" in first
        assert "next to nothing is left in 1 of 4 (first utt2)" in second

    def written(name):
        folder = DataFolder.read(tmp_path / name)
        assert folder.channels is None
        return [soundfile.read(folder.wav[utt])[0] for utt in folder.utterances]

    caplog.clear()
    format_folder(path, tmp_path / "second", 16000, channel=2)
    expected = [waves[3], waves[1], -waves[2], waves[3]]
    np.testing.assert_allclose(written("second"), expected, atol=1e-3)
    (path / "reco2file_and_channel").write_text("utt0 call B\nutt2 pair 1\nutt3 mono B\n")
    format_folder(path, tmp_path / "table", 16000)
    expected = [waves[3], waves[1], waves[2], waves[3]]
    np.testing.assert_allclose(written("table"), expected, atol=1e-3)
    assert not caplog.messages
    (path / "reco2file_and_channel").write_text("utt0 call 3\n")
    assert "3 kept" in format_folder(path, tmp_path / "none", 16000)
    (row,) = read_report(tmp_path / "none")
    assert "no channel 3: it has 2" in row.reason
    (path / "reco2file_and_channel").write_text("utt0 call left\n")
    with pytest.raises(UserError, match="reco2file_and_channel:1: .*is no name and channel"):
        format_folder(path, tmp_path / "none", 16000)


def test_clipping_and_a_lower_rate_are_reported(sines, tmp_path, caplog):
    path = sines(rate=8000)
    wave, _ = soundfile.read(tmp_path / "corpus/1.wav")
    soundfile.write(tmp_path / "corpus/1.wav", np.clip(4 * wave, -1, 1), 8000)
    format_folder(path, tmp_path / "dump", 16000)
    assert "audio below 16000 Hz in 4 of 4" in caplog.messages[0]
    assert "of the samples at full scale in 1 of 4 (first utt1)" in caplog.messages[1]


def test_an_exception_on_one_utterance_is_its_own(sines, tmp_path, monkeypatch):
    path, read = sines(), soundfile.SoundFile.read

    def broken(self, *args, **kwargs):
        if str(self.name).endswith("corpus/2.wav"):
            raise ValueError("seek beyond 2^63")
        return read(self, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "read", broken)
    assert "3 kept" in format_folder(path, tmp_path / "dump", 16000)
    (row,) = read_report(tmp_path / "dump")
    assert row.utt == "utt2" and "ValueError: seek beyond" in row.reason
    assert [problem.key for problem in audio_problems(DataFolder.read(path))] == ["utt2"]


ARKS = ["flac.ark", "wav.ark"]


@pytest.fixture
def small_parts(monkeypatch):
    """Two utterances in an archive."""
    monkeypatch.setattr(data_format, "_MAX_PART", 2)


@pytest.mark.parametrize("audio_format", ARKS)
def test_archives_hold_what_single_files_do(an4, tmp_path, small_parts, audio_format):
    format_folder(an4, tmp_path / "files", 16000, audio_format.removesuffix(".ark"))
    summary = format_folder(an4, tmp_path / "arks", 16000, audio_format, nj=2)
    assert "12 utterances in, 12 kept (0 were there already), 0 dropped" in summary
    files, arks = DataFolder.read(tmp_path / "files"), DataFolder.read(tmp_path / "arks")
    assert (arks.text, arks.utt2spk, arks.utt2num_samples) == (
        files.text,
        files.utt2spk,
        files.utt2num_samples,
    )
    for utt in files.utterances:
        mine, theirs = read_sound(arks.wav[utt]), read_sound(files.wav[utt])
        np.testing.assert_array_equal(mine.samples, theirs.samples)
    assert (tmp_path / "arks/audio.tsv").read_text() == (tmp_path / "files/audio.tsv").read_text()
    names = sorted(path.name for path in (tmp_path / "arks/audio").iterdir())
    assert names == sorted(
        f"{i:05d}.{audio_format}{end}" for i in range(6) for end in ("", ".json")
    )
    assert audio_problems(arks) == arks.missing_audio() == []


def stats_of(folder):
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("audio/*.ark"))}


def test_archives_that_are_there_and_right_stay(sines, tmp_path, small_parts, monkeypatch):
    path, out = sines(n=8), tmp_path / "dump"
    format_folder(path, out, 16000, "flac.ark")
    first, table = stats_of(out), (out / "wav.scp").read_text()
    assert "8 kept (8 were there already)" in format_folder(path, out, 16000, "flac.ark")
    # Truncated; gone; without what stands beside it; of a source that has changed.
    content = (out / "audio/00000.flac.ark").read_bytes()
    (out / "audio/00000.flac.ark").write_bytes(content[:-5])
    (out / "audio/00001.flac.ark").unlink()
    (out / "audio/00002.flac.ark.json").write_text("{")
    wave, _ = soundfile.read(tmp_path / "corpus/7.wav")
    soundfile.write(tmp_path / "corpus/7.wav", wave[:8000], 16000)
    assert "8 kept (0 were there already)" in format_folder(path, out, 16000, "flac.ark")
    folder = DataFolder.read(out)
    assert folder.utt2num_samples["utt7"] == 8000
    assert [len(read_sound(folder.wav[f"utt{i}"]).samples) for i in range(8)] == [16000] * 7 + [
        8000
    ]
    assert (out / "audio/00000.flac.ark").read_bytes() == content
    # Other code that makes the same changes no time: nothing that read it has to be done again.
    before = stats_of(out)
    monkeypatch.setattr(data_format, "code_of", lambda command: {"mambaasr/data/format.py": "2"})
    assert "8 kept (0 were there already)" in format_folder(path, out, 16000, "flac.ark")
    assert stats_of(out) == before != first
    assert (out / "wav.scp").read_text() == table


def test_archives_of_a_larger_set_go(sines, tmp_path, small_parts):
    out = tmp_path / "dump"
    format_folder(sines(n=6), out, 16000, "flac.ark")
    left = out / "audio/.00001.flac.ark.k3j4h5"
    left.write_bytes(b"half")
    format_folder(sines("data/fewer", n=3), out, 16000, "flac.ark")
    names = {f"0000{i}.flac.ark{end}" for i in range(2) for end in ("", ".json")}
    assert {path.name for path in (out / "audio").iterdir()} == names
    assert audio_problems(DataFolder.read(out)) == []


def test_bad_audio_of_archives_is_reported_and_tried_again(sines, tmp_path, small_parts):
    path, out = sines(), tmp_path / "dump"
    whole = (tmp_path / "corpus/3.wav").read_bytes()
    break_two(tmp_path)
    summary = format_folder(path, out, 16000, "flac.ark", keep_references=True)
    assert "4 utterances in, 2 kept" in summary and "2 dropped, references kept" in summary
    rows = read_report(out)
    assert [(row.utt, row.where) for row in rows] == [
        ("utt1", f"{path}/wav.scp:2"),
        ("utt3", f"{path}/wav.scp:4"),
    ]
    assert "truncated" in rows[0].reason and "no such file" in rows[1].reason
    assert "2 kept (2 were there already)" in format_folder(path, out, 16000, "flac.ark")
    (tmp_path / "corpus/3.wav").write_bytes(whole)
    assert "3 kept (1 were there already)" in format_folder(path, out, 16000, "flac.ark")
    assert DataFolder.read(out).utterances == ["utt0", "utt2", "utt3"]


def test_a_reason_that_has_passed(sines, tmp_path, small_parts, monkeypatch):
    """The file is the same, and what read it failed."""
    path, out = sines(n=2), tmp_path / "dump"
    read = data_format.read_sound

    def failing(source, *stretch):
        if str(source).endswith("1.wav"):
            raise AudioError("the disk has failed")
        return read(source, *stretch)

    monkeypatch.setattr(data_format, "read_sound", failing)
    assert "1 kept (0 were there already)" in format_folder(path, out, 16000, "flac.ark")
    assert "1 kept (1 were there already)" in format_folder(path, out, 16000, "flac.ark")
    monkeypatch.setattr(data_format, "read_sound", read)
    assert "2 kept (0 were there already)" in format_folder(path, out, 16000, "flac.ark")


def test_bad_archives_are_found(sines, tmp_path, small_parts):
    format_folder(sines(), tmp_path / "dump", 16000, "flac.ark")
    path = tmp_path / "dump/audio/00001.flac.ark"
    path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "dump/audio/00000.flac.ark").unlink()
    folder = DataFolder.read(tmp_path / "dump")
    gone = [(problem.key, "no such file" in problem.reason) for problem in folder.missing_audio()]
    assert gone == [("utt0", True), ("utt1", True)]
    (found,) = audio_problems(folder, skip={"utt0", "utt1"})
    assert found.key == "utt3" and "truncated" in found.reason
    assert found.where == f"{tmp_path}/dump/wav.scp:4"


def test_archives_are_a_source_too(sines, tmp_path):
    path = sines()
    format_folder(path, tmp_path / "once", 16000, "flac.ark")
    format_folder(tmp_path / "once", tmp_path / "twice", 16000, "wav.ark")
    once, twice = DataFolder.read(tmp_path / "once"), DataFolder.read(tmp_path / "twice")
    for utt in once.utterances:
        mine, theirs = read_sound(once.wav[utt]), read_sound(twice.wav[utt])
        np.testing.assert_array_equal(mine.samples, theirs.samples)
