"""Downloads and archives: whole or not there, gone on with, hostile ones refused."""

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from served import make_tar, serve, special

from mambaasr.data.download import download, lfs_checksum, unpack
from mambaasr.errors import UserError

CONTENT = bytes(range(256)) * 2000
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


@pytest.fixture
def server(tmp_path):
    """The address of a served file, x.tar.gz, and what was asked for."""
    with serve(tmp_path / "served") as (address, asked):
        (tmp_path / "served/x.tar.gz").write_bytes(CONTENT)
        yield address, asked


@pytest.mark.parametrize(
    "hostile",
    [
        {"../../escaped": b"x"},
        {"/tmp/mambaasr-escaped": b"x"},
        {"link": special("an4-1234/link", tarfile.SYMTYPE, "../../escaped")},
        {"link": special("an4-1234/link", tarfile.LNKTYPE, "/etc/passwd")},
        {"fifo": special("an4-1234/fifo", tarfile.FIFOTYPE)},
        {"device": special("an4-1234/device", tarfile.CHRTYPE)},
    ],
    ids=["dotdot", "absolute", "symlink out", "hard link out", "fifo", "device"],
)
def test_a_hostile_archive_is_refused_and_leaves_nothing(tmp_path, hostile):
    name = next(iter(hostile))
    top = "" if name.startswith("/") else "an4-1234"
    first = {"etc/a" if top else "an4-1234/etc/a": b"good"}
    archive = make_tar(tmp_path / "an4.tar.gz", first | hostile, top)
    if name.startswith("/"):
        # "data" strips the leading slash, which leaves two top folders.
        expected = "one top folder was expected"
    else:
        expected = "cannot be unpacked"
    with pytest.raises(UserError, match=expected):
        unpack(archive, tmp_path / "inside" / "an4")
    assert list((tmp_path / "inside").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["an4.tar.gz", "inside"]
    assert not Path("/tmp/mambaasr-escaped").exists()


def test_a_damaged_archive_leaves_nothing(tmp_path):
    archive = make_tar(tmp_path / "an4.tar.gz", {"etc/a": os.urandom(100_000)})
    content = archive.read_bytes()
    for damaged in (content[:-20_000], content[:50_000] + b"\0" * 100 + content[50_100:], b"no"):
        archive.write_bytes(damaged)
        with pytest.raises(UserError, match="cannot be unpacked"):
            unpack(archive, tmp_path / "inside" / "an4")
        assert list((tmp_path / "inside").iterdir()) == []


def test_the_inner_folder_of_an_archive(tmp_path):
    archive = make_tar(tmp_path / "x.tar.gz", {"a/b/c": b"1", "LICENSE": b"2"}, "Corpus")
    unpack(archive, tmp_path / "out/b", inner="a/b")
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["b", "c"]
    with pytest.raises(UserError, match="x.tar.gz: there is no Corpus/a/d in it"):
        unpack(archive, tmp_path / "out/d", inner="a/d")


def test_a_download_is_whole_or_absent(server, tmp_path):
    address, asked = server
    target = tmp_path / "got" / "x.tar.gz"
    with pytest.raises(UserError, match=r"x\.tar\.gz: cannot .*IncompleteRead"):
        download(f"{address}/short/x.tar.gz", target)
    with pytest.raises(UserError, match=r"none\.tar\.gz: .*404"):
        download(f"{address}/none.tar.gz", target)
    assert list(target.parent.iterdir()) == []
    download(f"{address}/x.tar.gz", target)
    assert target.read_bytes() == CONTENT and [path for path in target.parent.iterdir()] == [target]
    asked.clear()
    download(f"{address}/none.tar.gz", target)  # already there: nothing is asked
    assert asked == []


@pytest.mark.parametrize("kind", ["", "whole/"])
def test_a_broken_download_is_gone_on_with(kind, server, tmp_path, capsys):
    """From where it broke off; from the start where the server knows no parts."""
    address, asked = server
    target = tmp_path / "x.tar.gz"
    for _ in range(2):
        with pytest.raises(UserError, match="try it later"):
            download(f"{address}/short/x.tar.gz", target, SHA256, "try it later")
    assert (tmp_path / "x.tar.gz.part").read_bytes() == CONTENT[: 2 << 16] and not target.exists()
    download(f"{address}/{kind}x.tar.gz", target, SHA256)
    assert [ranges for _, ranges in asked] == [None, "bytes=65536-", "bytes=131072-"]
    assert target.read_bytes() == CONTENT and not (tmp_path / "x.tar.gz.part").exists()


def test_what_was_killed_before_it_got_its_name(server, tmp_path):
    (tmp_path / "x.tar.gz.part").write_bytes(CONTENT)
    download(f"{server[0]}/x.tar.gz", tmp_path / "x.tar.gz", SHA256)
    assert (tmp_path / "x.tar.gz").read_bytes() == CONTENT


def test_sums_that_a_repository_notes(server, tmp_path):
    address, served = server[0], tmp_path / "served"
    note = f"version https://git-lfs.github.com/spec/v1\noid {SHA256}\nsize {len(CONTENT)}\n"
    (served / "note").write_text(note)
    assert lfs_checksum(f"{address}/note") == SHA256
    assert lfs_checksum(f"{address}/x.tar.gz") is None  # itself there
    (served / "empty").touch()
    assert lfs_checksum(f"{address}/empty") is None
    with pytest.raises(UserError, match="none: cannot be downloaded: 404.*; ask them"):
        lfs_checksum(f"{address}/none", "ask them")


def test_another_sum_leaves_nothing(server, tmp_path):
    with pytest.raises(UserError, match="its md5 is [0-9a-f]{32}, not 0123; ask them"):
        download(f"{server[0]}/x.tar.gz", tmp_path / "x.tar.gz", "md5:0123", "ask them")
    assert list(tmp_path.glob("x*")) == []
