import pytest
import soundfile

from mambaasr.data.filter import filter_folder
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.data.report import read_report
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


def test_recorded_speech(an4, tmp_path):
    format_folder(an4, tmp_path / "dump", 16000)
    filter_folder(tmp_path / "dump", tmp_path / "out", 0.1, 2.5)
    kept, dropped = DataFolder.read(tmp_path / "out"), read_report(tmp_path / "out")
    assert kept.utterances and dropped
    assert len(kept.utterances) + len(dropped) == 12
    assert all(soundfile.info(path).duration <= 2.5 for path in kept.wav.values())


def test_nothing_left(sines, tmp_path):
    with pytest.raises(UserError, match="no utterance is left"):
        filter_folder(sines(), tmp_path / "out", 5, 10)
    assert len(read_report(tmp_path / "out")) == 4
    assert not (tmp_path / "out/wav.scp").exists()


@pytest.mark.parametrize("low, high", [(-1, 2), (3, 2), (0, float("nan"))])
def test_limits_that_make_no_sense(sines, tmp_path, low, high):
    with pytest.raises(UserError, match="leave nothing"):
        filter_folder(sines(), tmp_path / "out", low, high)


def test_what_it_does_not_take(sines, tmp_path):
    path = sines()
    with pytest.raises(UserError, match="another folder for the output"):
        filter_folder(path, path)
    (path / "wav.scp").write_text(f"rec {tmp_path}/corpus/0.wav\n")
    (path / "segments").write_text("".join(f"utt{i} rec 0 1\n" for i in range(4)))
    with pytest.raises(UserError, match="run format_audio first"):
        filter_folder(path, tmp_path / "out")


def test_missing_audio(sines, tmp_path):
    path = sines()
    (tmp_path / "corpus/2.wav").unlink()
    with pytest.raises(UserError, match="wav.scp:3: .*2.wav: not readable"):
        filter_folder(path, tmp_path / "out")
