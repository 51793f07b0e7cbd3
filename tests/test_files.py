"""Tests of mambaasr.files."""

import os
import stat
import subprocess
import sys
import threading

import pytest

from mambaasr.errors import UserError
from mambaasr.files import atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_text_is_utf8_with_plain_line_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with atomic_write(path) as stream:
        stream.write("größe\n語\r\n")
    assert path.read_bytes() == "größe\n語\r\n".encode()
    assert names(path.parent) == ["file"]


def test_bytes(tmp_path):
    content = bytes(range(256))
    with atomic_write(tmp_path / "file", "wb") as stream:
        stream.write(content)
    assert (tmp_path / "file").read_bytes() == content


def test_the_old_file_stays_until_the_block_ends(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with atomic_write(path) as stream:
        stream.write("new")
        stream.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError("wrong"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path) as stream:
        stream.write("half")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_another_files_error_passes_as_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "file"):
        open(tmp_path / "gone")
    assert caught.value.filename == str(tmp_path / "gone")
    with pytest.raises(ConnectionResetError), atomic_write(tmp_path / "file"):
        raise ConnectionResetError("by peer")
    assert names(tmp_path) == []


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_full_disk(tmp_path, size):
    """A limit on the size of files stands for it: within the buffer, and beyond."""
    path = tmp_path / "file"
    path.write_text("old")
    program = f"""
import resource, signal
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, 50))
try:
    with atomic_write({str(path)!r}) as stream:
        stream.write("x" * {size})
except UserError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{path}: cannot be written: File too large\n", done.stderr
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/below: cannot be written"):
        with atomic_write(tmp_path / "file" / "below"):
            pytest.fail("the block began")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: cannot be written: Is a directory"):
        with atomic_write(tmp_path / "folder") as stream:
            stream.write("x")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "file") as stream:
            stream.write("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_the_umask_is_not_touched(tmp_path, monkeypatch):
    """It belongs to the whole process: another thread's file would get the wrong mode."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("changed"))
    with atomic_write(tmp_path / "file") as stream:
        stream.write("x")


def test_many_writers_of_one_file(tmp_path):
    contents = [f"{number}\n" * 10_000 for number in range(8)]

    def write(content):
        with atomic_write(tmp_path / "file") as stream:
            stream.write(content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_text() in contents
    assert names(tmp_path) == ["file"]
