"""Fingerprints of files, folders and corpora; the files that a command names."""

import os

import pytest

from mambaasr.fingerprint import (
    fingerprint,
    fingerprint_audio,
    fingerprint_corpus,
    fingerprints,
    named_files,
)
from mambaasr.recipe.task import options


def test_fingerprint_of_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("a")
    before = fingerprint(tmp_path)
    (tmp_path / "deep/__pycache__").mkdir()
    assert fingerprint(tmp_path) == before
    (tmp_path / "deep/file").write_text("b")
    assert fingerprint(tmp_path) != before
    assert fingerprint(tmp_path / "nothing") is None


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    (folder / "train/one").mkdir(parents=True)
    for name in ("train/one/a.flac", "train/one/b.flac", "train/one.trans.txt", "README"):
        (folder / name).write_text("x")
        os.utime(folder / name, (1, 1))
    return folder


def test_a_corpus_is_known_by_names_and_by_its_texts(corpus):
    before = fingerprint_corpus(corpus)
    os.utime(corpus / "train/one", (2, 2))
    (corpus / "train/one/a.flac").write_text("audio is looked at behind wav.scp")
    assert fingerprint_corpus(corpus) == before
    found = {before}
    for change in (
        lambda: (corpus / "train/one.trans.txt").write_text("corrected"),
        lambda: (corpus / "train/one/c.flac").touch(),
        lambda: (corpus / "train/one/b.flac").unlink(),
        lambda: (corpus / "train/one").rename(corpus / "train/two"),
    ):
        change()
        found.add(fingerprint_corpus(corpus))
    assert len(found) == 5
    assert fingerprint_corpus(corpus / "nothing") is None


def test_links_in_a_corpus_are_followed_once(corpus, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "more.txt").write_text("a")
    (corpus / "link").symlink_to(other)
    (other / "back").symlink_to(corpus)
    (corpus / "dangling.txt").symlink_to("nowhere")
    (corpus / "loop").symlink_to("loop")
    before = fingerprint_corpus(corpus)
    (other / "more.txt").write_text("ab")
    assert fingerprint_corpus(corpus) != before


def test_files_that_a_command_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = "plain key.npz a,b.scp old.pth in.yaml lm.pth deep.txt unused out own.txt".split()
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.yaml").write_text("lm_file: lm.pth\nnested: {list: [1, deep.txt]}\nunused: 1\n")
    words = "x plain --conf k=key.npz --data a,b.scp,speech,sound --init_param old.pth:a:b "
    words += "--config in.yaml --out out folder --none gone.txt"
    given = options([*words.split(), "--more", "{a: [own.txt], b: 3}", "--text", "not, a file"])
    (tmp_path / "inputs.yaml").write_text("--init_param: [unused]\n")
    found = named_files(given, ["inputs.yaml"], outputs=[tmp_path / "out"])
    wanted = "plain key.npz a,b.scp old.pth in.yaml lm.pth deep.txt own.txt unused"
    assert sorted(found) == sorted(wanted.split())


def test_a_config_that_cannot_be_read_is_left_to_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.yaml").write_text("a: [")
    given = options(["--config", "bad.yaml", "--x", "{a: [", "--y", "{a: 2024-99-99}"])
    assert named_files(given) == ["bad.yaml"]
    (tmp_path / "bad.yaml").write_text("a: 2024-99-99")
    assert named_files(given) == ["bad.yaml"]


def test_archives_are_known_by_size_time_and_place(tmp_path):
    archive, listed = tmp_path / "x.flac.ark", tmp_path / "wav.scp"
    archive.write_bytes(b"a AUDIO")
    os.utime(archive, (1, 1))
    found = set()
    for offset in (2, 3):
        listed.write_text(f"a {archive}:{offset}\n")
        found.add(fingerprint_audio(listed))
    os.utime(archive, (2, 2))
    found.add(fingerprint_audio(listed))
    archive.unlink()
    found.add(fingerprint_audio(listed))
    assert len(found) == 4
    listed.rename(tmp_path / "feats.scp")
    said = f"the features of {tmp_path}/feats.scp"
    assert fingerprints([tmp_path / "feats.scp"])[said] in found
