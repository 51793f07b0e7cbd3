import numpy as np
import pytest
import soundfile

from mambaasr.bin import format_audio
from mambaasr.bin.check_data import main
from mambaasr.data.dropped import read_report
from mambaasr.errors import UserError


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "data $(touch x), 'train'"
    path.mkdir()
    for i in range(3):
        soundfile.write(path / f"{i}.wav", 0.1 * np.ones(1600), 16000)
    (path / "wav.scp").write_text("".join(f"utt{i} {path}/{i}.wav\n" for i in range(3)))
    (path / "text").write_text("utt0 ONE\nutt1 TWO\nutt2 THREE\n")
    (path / "utt2spk").write_text("utt0 a\nutt1 a\nutt2 b\n")
    return path


def test_nothing_wrong(folder, capsys):
    assert main([str(folder), "--read_audio"]) == 0
    assert "3 utterances, no problems" in capsys.readouterr().out


def test_all_problems_are_printed_and_mended(folder, capsys):
    (folder / "text").write_text("utt0 ONE\nutt1 TWO\n")
    content = (folder / "0.wav").read_bytes()
    (folder / "0.wav").write_bytes(content[:500])
    assert main([str(folder)]) == 1
    assert "utt0" not in capsys.readouterr().out
    assert main([str(folder), "--read_audio"]) == 1
    said = capsys.readouterr().out
    assert f"{folder}/wav.scp:3: utt2: no transcript in text; add it" in said
    assert f"{folder}/wav.scp:1: utt0: " in said and "truncated" in said and "2 problems" in said
    assert main([str(folder), "--read_audio", "--fix", "--drop_bad_audio"]) == 0
    assert "kept 1 utterances, dropped 2" in capsys.readouterr().out
    assert main([str(folder), "--read_audio"]) == 0
    assert [line.split("\t")[0] for line in (folder / "report.tsv").read_text().splitlines()] == [
        "utt",
        "utt2",
        "utt0",
    ]


def test_bad_audio_stays_and_counts_as_deleted(folder, tmp_path, capsys):
    (folder / "text").write_text("utt0 ONE\nutt2 THREE\n")
    (folder / "2.wav").unlink()
    assert main([str(folder), "--fix"]) == 1
    said = capsys.readouterr().out
    assert "kept 2 utterances, dropped 1" in said and "1 of the utterances kept have bad" in said
    assert main([str(folder), "--fix"]) == 1
    assert not (folder / ".backup.2").exists()
    out = tmp_path / "dump"
    assert format_audio.main([str(folder), str(out), "--keep_bad"]) == 0
    assert (out / "text").read_text() == "utt0 ONE\nutt2 THREE\n"
    assert (out / "wav.scp").read_text().startswith("utt0 ")
    assert [(row.utt, row.reason.split(": ")[-1]) for row in read_report(out)] == [
        ("utt1", "no transcript in text"),
        ("utt2", "No such file or directory"),
    ]
    with pytest.raises(UserError, match="give both"):
        main([str(folder), "--drop_bad_audio"])


def test_a_pipe_is_not_run(folder, tmp_path, capsys):
    text = (folder / "wav.scp").read_text()
    (folder / "wav.scp").write_text(text.replace(f"{folder}/1.wav", f"touch {tmp_path}/EVIL |"))
    assert main([str(folder), "--read_audio", "--fix"]) == 0
    assert "wav.scp:2: utt1: a pipe, and commands in data files are not run" in (
        capsys.readouterr().out
    )
    assert not (tmp_path / "EVIL").exists()
