"""What a command line names."""

import os

import pytest

from mambaasr.decode.recordings import Clip, find_recordings, parse_clips


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.wav", "talks/a.mp3", "talks/deep/b.FLAC", "talks/notes.txt", "[x].wav"):
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        open(name, "w").close()
    return tmp_path


def names(*inputs, **more):
    found, problems = find_recordings(inputs, **more)
    return {each.name: str(each.path) for each in found}, problems


def test_files_folders_patterns_and_lists(files):
    assert names("a.wav") == ({"a": "a.wav"}, [])
    assert names("talks")[0] == {"a": "talks/a.mp3", "deep/b": "talks/deep/b.FLAC"}
    assert names("talks/**/*.FLAC")[0] == {"b": "talks/deep/b.FLAC"}
    (files / "list").write_text("talks/a.mp3\n\n talks/deep \n")
    assert names("@list")[0] == {"a": "talks/a.mp3", "b": "talks/deep/b.FLAC"}
    # A file with marks of a pattern in its name is that file.
    assert names("[x].wav")[0] == {"[x]": "[x].wav"}
    # What is missing is reported when it is read.
    assert names("gone.wav") == ({"gone": "gone.wav"}, [])


def test_each_once_and_under_a_name_of_its_own(files):
    assert names("a.wav", "./a.wav", "talks")[0] == {
        "a.wav": "a.wav",
        "a.mp3": "talks/a.mp3",
        "deep/b": "talks/deep/b.FLAC",
    }
    (files / "other").mkdir()
    for name in ("a.wav", "a.wav_1.wav"):
        (files / "other" / name).touch()
    found, _ = names("a.wav", "other/a.wav")
    assert found == {"a.wav_1": "a.wav", "a.wav_2": "other/a.wav"}
    found, _ = names("a.wav", "other/a.wav", "other/a.wav_1.wav")
    assert sorted(found.values()) == ["a.wav", "other/a.wav", "other/a.wav_1.wav"]


def test_what_is_no_audio_of_a_folder(files):
    (files / "talks/folder.wav").mkdir()
    (files / "talks/._a.mp3").touch()
    assert names("talks")[0] == {"a": "talks/a.mp3", "deep/b": "talks/deep/b.FLAC"}


def test_a_data_folder(files):
    (files / "data").mkdir()
    (files / "data/wav.scp").write_text("r1 a.wav\nr2 talks/a.mp3\n")
    assert names("data")[0] == {"r1": "a.wav", "r2": "talks/a.mp3"}
    (files / "data/segments").write_text("u1 r1 0.5 1.5\nu2 r1 2 -1\n")
    (files / "data/utt2lang").write_text("u1 cy\nu2 de\n")
    found, _ = find_recordings(["data"], channel=2)
    assert [(each.name, each.clips, each.language, each.channel) for each in found] == [
        ("u1", (Clip(0.5, 1.5),), "cy", 2),
        ("u2", (Clip(2.0, None),), "de", 2),
    ]
    (files / "data/reco2file_and_channel").write_text("r1 call A\nr2 call B\n")
    found, _ = find_recordings(["data"])
    assert [each.channel for each in found] == [1, 1]  # both are of r1
    (files / "data/wav.scp").write_text("r1 a.wav\nr2 a.wav\n")
    (files / "data/segments").unlink()
    found, _ = find_recordings(["data"])
    assert [(each.name, each.path, each.channel) for each in found] == [
        ("r1", "a.wav", 1),
        ("r2", "a.wav", 2),
    ]
    (files / "data/segments").write_text("u1 r9 0.5 1.5\n")
    assert names("data", "a.wav") == (
        {"a": "a.wav"},
        ["data/segments: u1: there is no r9 in wav.scp"],
    )


def test_inputs_of_which_nothing_comes(files):
    (files / "empty").mkdir()
    _, problems = names("empty", "no*.wav", "@gone")
    assert problems[0] == "empty: there is no audio below this folder"
    assert problems[1] == "no*.wav: no file fits this pattern"
    assert problems[2].startswith("gone: this list cannot be read")
    (files / "loop").write_text("@loop\n")
    assert names("@loop")[1] == ["loop: this list names itself"]


def test_clips():
    assert parse_clips("1.5") == (Clip(1.5, None),)
    assert parse_clips("0,2,3,4.5") == (Clip(0, 2), Clip(3, 4.5))
    assert parse_clips("0,2,2") == (Clip(0, 2), Clip(2, None))
    for text in ("2,1", "-1,2", "1,1", "a", "", "0,inf", "nan,1"):
        with pytest.raises(ValueError):
            parse_clips(text)
