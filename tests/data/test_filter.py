import os

import numpy as np
import pytest
import soundfile
from omniio import kaldi

from mambaasr.data.audio import read_sound
from mambaasr.data.dropped import read_report
from mambaasr.data.filter import filter_folder
from mambaasr.data.folder import DataFolder, fix
from mambaasr.data.format import format_folder
from mambaasr.data.speed import perturb_folder
from mambaasr.errors import UserError


def cut(tmp_path, number, seconds):
    path = tmp_path / f"corpus/{number}.wav"
    wave, rate = soundfile.read(path)
    soundfile.write(path, list(wave[: int(seconds * rate)]), rate)


@pytest.mark.parametrize("formatted", [True, False])
def test_each_reason_is_named(sines, tmp_path, formatted):
    path = sines(n=5)
    cut(tmp_path, 1, 0.05)
    cut(tmp_path, 2, 0.4)
    cut(tmp_path, 3, 0.3)
    content = (path / "text").read_text().replace("utt3 WORD 3", "utt3")
    (path / "text").write_text(content)
    if formatted:
        format_folder(path, tmp_path / "dump", 8000)
        path = tmp_path / "dump"
    summary = filter_folder(path, tmp_path / "out", 0.1, 0.5)
    assert "5 utterances in, 1 kept, 4 dropped" in summary
    assert [(row.utt, row.where, row.reason) for row in read_report(tmp_path / "out")] == [
        ("utt0", f"{path}/wav.scp:1", "too long: 1 s > 0.5 s"),
        ("utt1", f"{path}/wav.scp:2", "too short: 0.05 s < 0.1 s"),
        ("utt3", f"{path}/text:4", "empty text"),
        ("utt4", f"{path}/wav.scp:5", "too long: 1 s > 0.5 s"),
    ]
    folder = DataFolder.read(tmp_path / "out")
    assert folder.utterances == list(folder.text) == ["utt2"]
    assert (folder.utt2num_samples is not None) is formatted


def test_limits_belong_to_what_is_kept(sines, tmp_path):
    path = sines(n=2)
    assert "2 kept, 0 dropped" in filter_folder(path, tmp_path / "out", 1.0, 1.0)


def test_references_without_audio_are_dropped(sines, tmp_path):
    path = sines(n=5)
    cut(tmp_path, 0, 0.05)
    (tmp_path / "corpus/1.wav").unlink()
    format_folder(path, tmp_path / "org", 16000, keep_references=True)
    assert "utt1" in DataFolder.read(tmp_path / "org").text
    summary = filter_folder(tmp_path / "org", tmp_path / "out", 0.1, 2)
    assert "5 utterances in, 3 kept, 2 dropped" in summary
    folder = DataFolder.read(tmp_path / "out")
    assert folder.utterances == sorted(folder.text) == sorted(folder.utt2spk)
    assert folder.utterances == ["utt2", "utt3", "utt4"]
    gone, short = read_report(tmp_path / "out")
    assert (gone.utt, gone.where) == ("utt1", f"{path}/wav.scp:2")
    assert "No such file" in gone.reason
    assert (short.utt, short.where) == ("utt0", f"{tmp_path}/org/wav.scp:1")


def test_one_report_names_all_that_was_dropped_on_the_way(sines, tmp_path):
    path = sines(n=4)
    with (path / "text").open("ab") as stream:
        stream.write(b"utt9 \xff\n")
    fix(*DataFolder.scan(path))
    (tmp_path / "corpus/0.wav").write_bytes(b"")
    perturb_folder(path, tmp_path / "sp", "0.9 1")
    cut(tmp_path, 1, 0.05)
    (tmp_path / "corpus/2.wav").unlink()
    format_folder(tmp_path / "sp", tmp_path / "org", 16000)
    filter_folder(tmp_path / "org", tmp_path / "out", 0.1, 1.05)
    rows = {row.utt: (row.where, row.reason) for row in read_report(tmp_path / "out")}
    kept = DataFolder.read(tmp_path / "out").utterances
    every = {f"{prefix}utt{i}" for prefix in ("", "sp0.9-") for i in range(4)} | {"utt9"}
    assert rows.keys() | set(kept) == every and not rows.keys() & set(kept)
    assert kept == ["utt3"]
    expected = {
        "utt9": (f"{path}/text:5", "not UTF-8"),
        "sp0.9-utt0": (f"{path}/wav.scp:1", "the file is empty"),
        "utt0": (f"{tmp_path}/sp/wav.scp:4", "the file is empty"),
        "utt2": (f"{tmp_path}/sp/wav.scp:6", "No such file"),
        "utt1": (f"{tmp_path}/org/wav.scp:4", "too short"),
        "sp0.9-utt3": (f"{tmp_path}/org/wav.scp:3", "too long"),
    }
    for utt, (where, reason) in expected.items():
        assert rows[utt][0] == where and reason in rows[utt][1], (utt, rows[utt])


def test_nothing_left(sines, tmp_path):
    with pytest.raises(UserError, match="no utterance is left"):
        filter_folder(sines(), tmp_path / "out", 5, 10)
    assert len(read_report(tmp_path / "out")) == 4
    assert not (tmp_path / "out/wav.scp").exists()


def test_segments_must_be_cut_before(sines, tmp_path):
    path = sines()
    (path / "wav.scp").write_text(f"rec {tmp_path}/corpus/0.wav\n")
    (path / "segments").write_text("".join(f"utt{i} rec 0 1\n" for i in range(4)))
    with pytest.raises(UserError, match="run format_audio first"):
        filter_folder(path, tmp_path / "out")


def test_a_file_that_does_not_say_its_length_is_one_utterances(sines, tmp_path, monkeypatch):
    path = sines()
    (tmp_path / "corpus/1.wav").write_bytes(b"no audio")
    info = soundfile.info

    def odd(name):
        if name.endswith("2.wav"):
            raise ValueError("odd")
        return info(name)

    monkeypatch.setattr(soundfile, "info", odd)
    assert "2 kept" in filter_folder(path, tmp_path / "out")
    rows = read_report(tmp_path / "out")
    assert [row.utt for row in rows] == ["utt1", "utt2"] and "odd" in rows[1].reason


def test_silence_and_noise_are_kept_and_made_up_to_a_ratio(sines, tmp_path):
    path = sines(n=5)
    text = (path / "text").read_text().replace("utt3 WORD 3", "utt3")
    (path / "text").write_text(text)
    format_folder(path, tmp_path / "dump", 8000)
    summary = filter_folder(tmp_path / "dump", tmp_path / "out", non_speech_ratio=0.75)
    assert "5 utterances in, 5 kept (1 without speech), 2 without speech made, 0 dropped" in summary
    folder = DataFolder.read(tmp_path / "out")
    made = ["non_speech-000000", "non_speech-000001"]
    assert [utt for utt in folder.utterances if not folder.text[utt]] == [*made, "utt3"]
    before = {}
    for utt in made:
        wave, rate = soundfile.read(folder.wav[utt])
        before[utt] = wave.tobytes()
        assert rate == 8000 and len(wave) == folder.utt2num_samples[utt] == 8000
    filter_folder(tmp_path / "dump", tmp_path / "again", non_speech_ratio=0.75)
    again = DataFolder.read(tmp_path / "again")
    assert {utt: soundfile.read(again.wav[utt])[0].tobytes() for utt in made} == before
    filter_folder(tmp_path / "dump", tmp_path / "few", non_speech_ratio=0.25)
    assert DataFolder.read(tmp_path / "few").utterances == [f"utt{i}" for i in range(5)]
    with pytest.raises(UserError, match="--non_speech_ratio 2: give 0 to 1"):
        filter_folder(tmp_path / "dump", tmp_path / "out", non_speech_ratio=2)


def test_pieces_are_flushed_to_the_disk_together(sines, tmp_path, monkeypatch):
    format_folder(sines(n=8), tmp_path / "dump", 8000)
    replace, order, synced = os.replace, [], []

    def note(source, target):
        order.append(os.path.basename(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", note)
    monkeypatch.setattr(os, "sync", lambda: order.append("sync"))
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(order)))
    filter_folder(tmp_path / "dump", tmp_path / "out", non_speech_ratio=1)
    pieces = [place for place, name in enumerate(order) if name.startswith("non_speech")]
    assert len(pieces) == 8 and not set(pieces) & set(synced)
    assert pieces[-1] < order.index("sync") < order.index("wav.scp")


def test_pieces_without_speech_go_into_an_archive_too(sines, tmp_path):
    """ESPnet's reader of archives takes a single file of 16 bits for other numbers."""
    format_folder(sines(n=8), tmp_path / "org", 16000, "flac.ark")
    filter_folder(tmp_path / "org", tmp_path / "out", non_speech_ratio=0.25)
    filter_folder(tmp_path / "org", tmp_path / "again", non_speech_ratio=0.25)
    folder, again = DataFolder.read(tmp_path / "out"), DataFolder.read(tmp_path / "again")
    added = [utt for utt in folder.utterances if utt.startswith("non_speech")]
    assert len(added) == 2
    assert all(f"{tmp_path}/out/audio/non_speech.flac.ark:" in folder.wav[utt] for utt in added)
    theirs = kaldi.load_scp(str(tmp_path / "out/wav.scp"))
    for utt in added:
        sound = read_sound(folder.wav[utt])
        assert len(sound.samples) == folder.utt2num_samples[utt] == 16000
        np.testing.assert_array_equal(sound.samples, theirs[utt][1].astype("float32"))
        np.testing.assert_array_equal(sound.samples, read_sound(again.wav[utt]).samples)
