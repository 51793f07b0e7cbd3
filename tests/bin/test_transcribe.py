"""Tests of mambaasr transcribe."""

import io
import json
import os
import shutil
import sys

import pytest
from tiny_asr import OURS, an4, make_experiment

from mambaasr.bin.transcribe import main
from mambaasr.data import ark
from mambaasr.decode import transcribe
from mambaasr.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An experiment's folder, with a decoding whose options are taken."""
    folder = tmp_path_factory.mktemp("exp")
    _, weights = make_experiment(folder, **OURS)
    weights.rename(folder / "valid.acc.ave.pth")
    decoding = folder / "decode_asr/test/decode.json"
    decoding.parent.mkdir(parents=True)
    decoding.write_text(json.dumps({"options": {"beam_size": 2, "ctc_weight": 0.3}}))
    return str(folder)


@pytest.fixture
def talks(test_data, tmp_path):
    """A folder with three recordings, one of them below another folder, and one that is none."""
    folder = tmp_path / "my talks"
    (folder / "old").mkdir(parents=True)
    for number, path in enumerate(an4(test_data, 3).values()):
        shutil.copy(path, folder / ("old" if number == 2 else "") / f"{number}.wav")
    (folder / "junk.mp3").write_text("no audio")
    return folder


def test_one_file_to_the_screen(model, talks, capsys):
    assert main([str(talks / "0.wav"), "--model", model]) == 0
    text = capsys.readouterr()
    assert text.out.count("\n") == 1 and "1 transcribed, 0 failed" in text.err
    assert main([str(talks / "0.wav"), str(talks / "1.wav"), "--model", model, "--quiet"]) == 0
    lines = capsys.readouterr()
    assert lines.out.splitlines()[0] == f"0\t{text.out.rstrip()}" and lines.err == ""


def test_a_folder_to_files_and_again(model, talks, tmp_path, capsys):
    """One bad file changes the exit status and nothing else; what is done is not done again."""
    out = tmp_path / "out"
    command = [str(talks), "--model", model, "-o", str(out)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "3 transcribed, 1 failed" in said and "error: " in said and "junk.mp3" in said
    suffixes = "ctm json srt stm tsv txt vtt".split()
    names = {file.relative_to(out).as_posix() for file in out.rglob("*.*") if file.is_file()}
    made = {f"{name}.{suffix}" for name in ("0", "1", "old/2") for suffix in suffixes}
    assert names == made | {f".made/{name}.json" for name in ("0", "1", "old/2")}
    times = {name: (out / name).stat().st_mtime_ns for name in made}
    (talks / "junk.mp3").unlink()
    os.utime(talks / "1.wav")
    (out / "old/2.srt").unlink()
    assert main(command) == 0
    assert "1 are done already" in capsys.readouterr().err
    again = {name for name in made if (out / name).stat().st_mtime_ns != times.get(name)}
    assert again == {f"{name}.{suffix}" for name in ("1", "old/2") for suffix in suffixes}
    # Another option is another transcript.
    assert main([*command, "--beam_size", "1"]) == 0
    assert "done already" not in capsys.readouterr().err
    assert main([*command, "--beam_size", "1", "--overwrite"]) == 0
    assert "3 transcribed" in capsys.readouterr().err


def test_json_and_standard_input(model, talks, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = [str(talks / "1.wav"), "--model", model, "-o", str(out), "-f", "json", "--nbest", "2"]
    assert main(words) == 0
    assert f"what is not given is as in {model}/decode_asr/test/decode.json" in (
        capsys.readouterr().err
    )
    content = json.loads((out / "1.json").read_text())
    assert sorted(content) == sorted(
        "name path text language duration long rtf error segments model version".split()
    )
    assert content["model"] == f"{model}/valid.acc.ave.pth" and content["name"] == "1"
    assert not list(out.glob("*.txt"))
    capsys.readouterr()
    data = (talks / "1.wav").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    words = ["-", "--model", model, "--json_lines", "--quiet", "--nbest", "2"]
    assert main([*words, "--word_timestamps", "false"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["name"] == "stdin" and line["text"] == content["text"]
    assert all(segment["words"] == [] for segment in line["segments"])


def test_a_data_folder_and_clips(model, talks, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    (data / "wav.scp").write_text(f"rec {talks / '1.wav'}\n")
    (data / "segments").write_text("utt-a rec 0 0.5\nutt-b rec 0.5 -1\n")
    assert main([str(data), "--model", model, "--json_lines", "--quiet"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["name"], second["name"]) == ("utt-a", "utt-b")
    assert first["segments"][0]["end"] == 0.5 and second["segments"][0]["start"] == 0.5
    words = [str(talks / "1.wav"), "--clip_timestamps", "0,0.5,0.5", "--json_lines", "--quiet"]
    assert main([*words, "--model", model]) == 0
    both = json.loads(capsys.readouterr().out)
    texts = [each["segments"][0]["text"] for each in (first, second)]
    assert [segment["text"] for segment in both["segments"]] == texts


def test_what_is_no_longer_right_is_removed(model, talks, tmp_path, capsys):
    out = tmp_path / "out"
    command = [str(talks / "0.wav"), "--model", model, "-o", str(out), "-f", "txt,srt"]
    assert main(command) == 0
    (talks / "0.wav").write_text("junk")
    assert main(command) == 1
    assert not [file for file in out.rglob("*") if file.is_file()]


def test_another_recording_of_the_name_is_not_written_over(model, talks, tmp_path, capsys):
    shutil.copy(talks / "1.wav", talks / "old/0.wav")
    out = tmp_path / "out"
    command = ["--model", model, "-o", str(out), "-f", "txt"]
    assert main([str(talks / "0.wav"), *command]) == 0
    before = (out / "0.txt").read_text()
    assert main([str(talks / "old/0.wav"), *command]) == 1
    assert f"0 was made of {talks}/0.wav: give another --output_dir" in capsys.readouterr().err
    assert (out / "0.txt").read_text() == before
    assert main([str(talks / "old/0.wav"), *command, "--overwrite"]) == 0


def test_audio_in_an_archive_that_changes(model, talks, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for number, said in ((0, "1 transcribed"), (0, "done already"), (1, "1 transcribed")):
        with ark.writing(data / "a.ark") as writer:
            place = writer.add("u", ark.audio_record((talks / f"{number}.wav").read_bytes()))
        os.utime(data / "a.ark", (number + 1, number + 1))
        (data / "wav.scp").write_text(f"u {place}\n")
        assert main([str(data), "--model", model, "-o", str(out), "-f", "txt"]) == 0
        assert said in capsys.readouterr().err


def test_interrupted_and_again(model, talks, tmp_path, capsys, monkeypatch):
    """What was done stays, whole; the rest is done by the same command."""
    (talks / "junk.mp3").unlink()
    given = transcribe._give
    done = []

    def interrupt(found, *more):
        given(found, *more)
        done.append(found.name)
        if len(done) == 2:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    command = [str(talks), "--model", model, "-o", str(out), "-f", "txt"]
    monkeypatch.setattr(transcribe, "_give", interrupt)
    with pytest.raises(KeyboardInterrupt):
        main(command)
    assert "stopped after 2 of 3 recordings; the same command goes on" in capsys.readouterr().err
    assert len(list(out.rglob("*.txt"))) == 2
    assert main(command) == 0 and "2 are done already" in capsys.readouterr().err
    assert len(list(out.rglob("*.txt"))) == 3


def test_standard_input_without_audio(model, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["-", "--model", model]) == 1
    assert "error: standard input: the file is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["-f", "srt"], "--output_format needs --output_dir"),
        (["-f", "docx", "-o", "x"], "--output_format docx: choose of txt, json"),
        (["--max_line_count", "2"], "--max_line_count needs --max_line_width"),
        (["--ctc_weight", "2"], "--ctc_weight 2.0: it lies from 0 to 1"),
        (["--batch_size", "many"], "--batch_size many: a number from 1, or auto"),
        (["--longest", "0.1"], "--longest 0.1: give at least a second"),
        (["--longest", "nan"], "--longest nan: give at least a second"),
        (["--phrase_weight", "nan"], "--phrase_weight nan: give a number"),
        (["--device", "foo"], "--device foo: there is no such kind"),
        (["--model", "nowhere"], "nowhere: no such model"),
        (["--phrases", "nowhere"], "nowhere"),
    ],
)
def test_mistakes(model, talks, options, message):
    with pytest.raises(UserError, match=message):
        main([str(talks / "0.wav"), "--model", model, *options])


def test_nothing_to_do_and_wrong_numbers(model, talks, tmp_path, capsys):
    with pytest.raises(UserError, match="nothing to transcribe in"):
        main([str(tmp_path / "no*.wav"), "--model", model])
    for words in (["--clip_timestamps", "2,1"], ["--nbest", "0"], ["--long", "never"], []):
        with pytest.raises(SystemExit, match="2"):
            main([str(talks / "0.wav"), *words, *(["--model", model] if words else [])])
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="a file of that name is there"):
        main([str(talks), "--model", model, "-o", str(tmp_path / "file")])
    with pytest.raises(UserError, match="--output_dir .*file/x: Not a directory"):
        main([str(talks), "--model", model, "-o", str(tmp_path / "file/x")])
