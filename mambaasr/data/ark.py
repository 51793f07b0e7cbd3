"""Kaldi's archives: many records in one file, each found by ``path.ark:offset``.

A record is a key, a space and, from the offset on,

- audio: ``AUDIO``, a byte that says in how many bytes the length follows (little endian), and a
  whole FLAC or WAV file, as ESPnet's ``flac.ark`` and ``wav.ark`` have it; or a bare WAV file, as
  Kaldi writes it;
- or a matrix in Kaldi's binary form, which may be compressed.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

_PLACE = re.compile(r"(.+\.ark):(\d+)")
_AUDIO, _BINARY = b"AUDIO", b"\0B"


class ArkError(UserError):
    """A record that cannot be used; the message is the reason."""


def split(path: str | Path) -> tuple[str, int | None]:
    """Return file and offset of ``file.ark:offset``; of any other path itself, and None."""
    found = _PLACE.fullmatch(str(path))
    return (found[1], int(found[2])) if found else (str(path), None)


def file_of(path: str | Path) -> str:
    """Return the file in which a path's content lies, which may be an archive."""
    return split(path)[0]


class Writer:
    """Adds records to an archive that is being written.

    Attributes:
        path: the archive, as places name it.
        size: its bytes so far.
    """

    def __init__(self, path: str | Path, stream: IO[bytes]) -> None:
        self.path, self.size = path, 0
        self._stream, self._digest = stream, hashlib.blake2b(digest_size=16)

    def add(self, key: str, record: bytes) -> str:
        """Write a record; return its place, ``path:offset``."""
        head = f"{key} ".encode()
        for part in (head, record):
            self._stream.write(part)
            self._digest.update(part)
        offset = self.size + len(head)
        self.size = offset + len(record)
        return f"{self.path}:{offset}"

    @property
    def digest(self) -> str:
        """A short text that changes with the content."""
        return self._digest.hexdigest()


@contextmanager
def writing(path: str | Path) -> Iterator[Writer]:
    """Open an archive that appears only when the block ends without an exception.

    Raises:
        UserError: see :func:`mambaasr.files.atomic_write`.
    """
    with atomic_write(path, "wb") as stream:
        yield Writer(path, stream)


def audio_record(file: bytes) -> bytes:
    """Return the record of a whole audio file."""
    width = max(1, (len(file).bit_length() + 7) // 8)
    return _AUDIO + bytes([width]) + len(file).to_bytes(width, "little") + file


def matrix_record(matrix: "np.ndarray") -> bytes:
    """Return the record of a matrix ``(rows, columns)``, in float32."""
    shape = b"".join(b"\4" + size.to_bytes(4, "little") for size in matrix.shape)
    return _BINARY + b"FM " + shape + matrix.astype("<f4").tobytes()


def open_audio(path: str | Path) -> io.BytesIO:
    """Return the audio file that an archive holds at ``path.ark:offset``.

    Raises:
        ArkError: there is none, or it is not whole.
        OSError: the archive cannot be read.
    """
    with _record(path) as (stream, left):
        head = stream.read(8)
        if head.startswith(_AUDIO):
            width = head[5] if len(head) > 5 else 0
            start = len(_AUDIO) + 1 + width
            stream.seek(len(_AUDIO) + 1 - len(head), os.SEEK_CUR)
            length = int.from_bytes(stream.read(width), "little")
        elif head.startswith(b"RIFF"):
            start, length = 0, 8 + int.from_bytes(head[4:], "little")
            stream.seek(-len(head), os.SEEK_CUR)
        elif head.startswith(_BINARY):
            raise ArkError(f"{path}: numbers, such as features, and no audio")
        else:
            raise ArkError(f"{path}: no record begins there")
        if start + length > left:
            raise ArkError(
                f"{path}: truncated: {length} bytes are promised, {max(0, left - start)} are there"
            )
        return io.BytesIO(stream.read(length))


def read_matrix(path: str | Path) -> "np.ndarray":
    """Return the matrix ``(rows, columns)`` at ``path.ark:offset``, or alone in a file.

    Returns:
        float32; compressed ones as Kaldi expands them.

    Raises:
        ArkError: there is none, it is not whole or has no row, or holds NaN or infinity.
    """
    import numpy as np
    from omniio import kaldi

    try:
        with _record(path) as (stream, _):
            if stream.peek(2)[:2] != _BINARY:
                audio = stream.peek(5)[:5] == _AUDIO or stream.peek(4)[:4] in (b"RIFF", b"fLaC")
                what = "audio, and no features" if audio else "no record begins there"
                raise ArkError(f"{path}: {what}")
            matrix = kaldi.read_object(stream)
    except ArkError:
        raise
    except OSError as error:
        raise ArkError(f"{path}: not readable: {error.strerror or error}") from error
    except Exception as error:  # whatever omniio makes of bytes at a wrong place
        raise ArkError(f"{path}: not readable, or truncated: {error}") from error
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2:
        raise ArkError(f"{path}: no matrix of frames and bins")
    if not matrix.size:
        raise ArkError(f"{path}: no frames")
    if not np.isfinite(matrix).all():
        raise ArkError(f"{path}: NaN or infinite values")
    # What is read from bytes cannot be written to.
    return np.array(matrix, dtype=np.float32)


def holds_matrix(path: str | Path) -> bool:
    """Say whether there are numbers at a place, not audio.

    Raises:
        ArkError: there is nothing.
    """
    try:
        with _record(path) as (stream, _):
            return stream.read(2) == _BINARY
    except OSError as error:
        raise ArkError(f"{path}: not readable: {error.strerror or error}") from error


@contextmanager
def _record(path: str | Path) -> Iterator[tuple[io.BufferedReader, int]]:
    """Open an archive at a record; yield it, and how many bytes are left there."""
    file, offset = split(path)
    offset = offset or 0
    try:
        stream = open(file, "rb")
    except FileNotFoundError:
        raise ArkError(f"{path}: no such file") from None
    with stream:
        left = os.fstat(stream.fileno()).st_size - offset
        if left <= 0:
            raise ArkError(f"{path}: the file has only {left + offset} bytes")
        stream.seek(offset)
        yield stream, left
