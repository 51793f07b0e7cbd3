import os

import pytest

from mambaasr.data.dropped import Dropped, read_report, write_report
from mambaasr.data.folder import DataFolder, Segment, fix
from mambaasr.errors import UserError


def edit(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def fix_all(path):
    return fix(*DataFolder.scan(path))


def test_read_what_was_written(sines, tmp_path):
    path = sines(n=3)
    folder = DataFolder.read(path)
    assert folder.utterances == ["utt0", "utt1", "utt2"]
    assert folder.spk2utt == {"spk0": ["utt0", "utt2"], "spk1": ["utt1"]}
    assert (path / "spk2utt").read_text() == "spk0 utt0 utt2\nspk1 utt1\n"
    assert folder.where("utt1") == f"{path}/wav.scp:2"
    assert folder.source("utt1") == (folder.wav["utt1"], 0.0, None)
    assert folder.missing_audio() == []
    folder.write(tmp_path / "copy")
    for name in ("wav.scp", "text", "utt2spk", "spk2utt"):
        assert (tmp_path / "copy" / name).read_bytes() == (path / name).read_bytes()


def segmented(path):
    (path / "wav.scp").write_text(f"rec {path}/../../corpus/0.wav\n")
    (path / "segments").write_text(
        "utt0 rec 0 0.25\nutt1 rec 0.25 0.5\nutt2 rec 0.1 0.75\nutt3 rec 0.75 -1\n"
    )
    return path


def test_segments(sines, tmp_path):
    folder = DataFolder.read(segmented(sines()))
    assert folder.segments["utt1"] == Segment("rec", 0.25, 0.5)
    assert folder.source("utt3") == (folder.wav["rec"], 0.75, None)
    folder.write(tmp_path / "copy")
    assert DataFolder.read(tmp_path / "copy").segments == folder.segments
    few = folder.select(["utt2"])
    assert (few.utterances, list(few.text), list(few.wav)) == (["utt2"], ["utt2"], ["rec"])
    few.segments = None
    few.wav = {"utt2": "x.wav"}
    few.write(tmp_path / "copy")
    assert not (tmp_path / "copy/segments").exists()


@pytest.mark.parametrize(
    "line, what",
    [
        ("utt1 rec 0.25", "3 columns instead of 4"),
        ("utt1 rec 0.5 0.25", "from 0.5 s to 0.25 s"),
        ("utt1 other 0.25 0.5", "recording 'other' is missing or unusable in wav.scp"),
    ],
)
def test_bad_segments(sines, line, what):
    path = segmented(sines())
    edit(path / "segments", b"utt1 rec 0.25 0.5", line.encode())
    with pytest.raises(UserError, match=f"segments:2: utt1: .*{what}"):
        DataFolder.read(path)
    assert fix_all(path) == (3, 1)
    assert DataFolder.read(path).utterances == ["utt0", "utt2", "utt3"]


@pytest.mark.parametrize(
    "name, old, new, where, what",
    [
        ("text", b"utt1 WORD 1\n", b"", "wav.scp:2", "no transcript in text"),
        ("wav.scp", b"utt1 ", b"other ", "wav.scp:2", "other: no transcript"),
        ("utt2spk", b"utt1 spk1\n", b"", "wav.scp:2", "no speaker in utt2spk"),
        ("text", b"utt1 WORD 1\n", b"utt1 A\nutt1 B\n", "text:3", "duplicate id 'utt1'"),
        ("wav.scp", b"1.wav", b"1.wav|", "wav.scp:2", "a pipe"),
    ],
)
def test_problems_are_named_and_fixed(sines, name, old, new, where, what):
    path = sines()
    before = (path / name).read_bytes()
    edit(path / name, old, new)
    broken = (path / name).read_bytes()
    with pytest.raises(UserError) as error:
        DataFolder.read(path)
    assert f"{path}/{where}: " in str(error.value) and what in str(error.value)
    kept, dropped = fix_all(path)
    assert kept == 3 and dropped >= 1
    assert DataFolder.read(path).utterances == ["utt0", "utt2", "utt3"]
    assert {"utt1"} <= {row.utt for row in read_report(path)}
    assert before != broken == (path / ".backup" / name).read_bytes()


def test_kept_references_of_unreadable_audio_are_no_problem(sines):
    path = sines()
    for name in ("text", "utt2spk"):
        with (path / name).open("a") as stream:
            stream.write("utt9 x\n")
    write_report(path, [Dropped("utt9", "data/test/wav.scp:5", "truncated")])
    assert DataFolder.read(path).text["utt9"] == "x"
    (path / "utt2spk").write_text((path / "utt2spk").read_text().replace("utt0 spk0\n", ""))
    assert fix_all(path) == (3, 1)
    assert DataFolder.read(path).text["utt9"] == "x"


def test_every_problem_is_counted_once(sines):
    path = sines(n=6)
    edit(path / "text", b"utt0 WORD", b"utt0 \xff")
    edit(path / "utt2spk", b"utt1 spk1", b"utt1 spk1 x")
    edit(path / "wav.scp", b"2.wav", b"nowhere.wav")
    folder, problems = DataFolder.scan(path)
    problems += folder.missing_audio()
    assert [problem.key for problem in problems] == ["utt0", "utt1", "utt2"]
    with pytest.raises(UserError, match="1 more problem"):
        DataFolder.read(path)
    assert fix(folder, problems) == (3, 3)
    assert [row.utt for row in read_report(path)] == ["utt0", "utt1", "utt2"]


def test_a_killed_fix_keeps_its_reasons(sines, monkeypatch):
    path = sines()
    edit(path / "text", b"utt1 WORD", b"utt1 \xff")
    write = DataFolder.write

    def die_half_way(self, where):
        self.segments = None
        (where / "text").write_text("".join(f"{u} {self.text[u]}\n" for u in sorted(self.text)))
        raise KeyboardInterrupt

    monkeypatch.setattr(DataFolder, "write", die_half_way)
    with pytest.raises(KeyboardInterrupt):
        fix_all(path)
    monkeypatch.setattr(DataFolder, "write", write)
    assert fix_all(path) == (3, 1)
    assert [(row.utt, "not UTF-8" in row.reason) for row in read_report(path)] == [("utt1", True)]


def contents(path):
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def test_no_backup_is_overwritten(sines):
    path = sines()
    states = []
    for utt in (b"utt1", b"utt2", b"utt3"):
        edit(path / "text", utt + b" WORD", utt + b" \xff")
        states.append(contents(path))
        fix_all(path)
    backups = (".backup", ".backup.2", ".backup.3")
    assert [contents(path / name) for name in backups] == states
    assert {p.name for p in path.iterdir() if p.is_dir()} == set(backups)


@pytest.mark.parametrize("replaced", range(5))
def test_a_fix_killed_between_two_files_is_seen_and_mended(sines, monkeypatch, replaced):
    path = sines()
    edit(path / "utt2spk", b"utt1 spk1\n", b"")
    before = contents(path)
    replace, calls = os.replace, []

    def die(source, target):
        if ".new" in str(source) and ".new" not in str(target):
            calls.append(target)
            if len(calls) > replaced:
                raise KeyboardInterrupt
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        if replaced < 4:
            with pytest.raises(KeyboardInterrupt):
                fix_all(path)
            with pytest.raises(UserError, match="utt1"):
                DataFolder.read(path)
            patch.undo()
        fix_all(path)
    assert DataFolder.read(path).utterances == ["utt0", "utt2", "utt3"]
    assert contents(path / ".backup") == before
    (row,) = read_report(path)
    assert (row.utt, row.reason) == ("utt1", "utt1: no speaker in utt2spk")


def test_a_folder_that_cannot_be_written_stays_as_it_was(sines, tmp_path):
    path = sines()
    folder = DataFolder.read(path)
    before = contents(path)
    folder.text["utt0"] = "OTHER"
    folder.utt2spk["utt3"] = "two\nlines"
    with pytest.raises(UserError, match="utt2spk: cannot be written"):
        folder.write(path)
    assert contents(path) == before and not any(p.is_dir() for p in path.iterdir())


def test_spk2utt_follows_from_utt2spk(sines):
    """Utterances are added and removed by hand; what another program wrote does not matter."""
    path = sines()
    (path / "spk2utt").write_text("spk0 utt0\nspk1 utt1 utt3\nspk7 utt2\n")
    DataFolder.read(path).write(path)
    assert (path / "spk2utt").read_text() == "spk0 utt0 utt2\nspk1 utt1 utt3\n"


def test_a_missing_file(sines):
    path = sines()
    (path / "text").unlink()
    with pytest.raises(UserError, match="text: no such file"):
        DataFolder.read(path)


def test_nothing_left_changes_nothing(sines):
    path = sines(n=1)
    edit(path / "wav.scp", b"0.wav", b"0.wav|")
    before = sorted((p.name, p.read_bytes()) for p in path.iterdir())
    with pytest.raises(UserError, match="every utterance has a problem.*a pipe"):
        fix_all(path)
    assert sorted((p.name, p.read_bytes()) for p in path.iterdir()) == before
