"""Write files atomically."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mambaasr.errors import UserError

# How a write to an open file fails; a block that reads another file fails in other ways.
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


@contextmanager
def atomic_write(path: str | Path, mode: str = "w", sync: bool = True) -> Iterator[IO[Any]]:
    """Open a file that appears under ``path`` only when the block ends without an exception.

    The content is written beside ``path``, flushed to the disk and renamed, so a kill at any
    moment leaves either the old file or the new one.

    Args:
        path: the final path; its folder is made if needed.
        mode: "w" (UTF-8 text, LF) or "wb".
        sync: False leaves it to the caller to flush many files to the disk at once; until then
            a machine that stops, unlike a process, may lose them.

    Raises:
        UserError: the disk is full or the folder cannot be written. Other exceptions of the
            block, such as that of another file which cannot be read, pass as they are.
    """
    path = Path(path)
    kwargs = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    in_block = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode.replace("w", "x"), **kwargs) as stream:
            in_block = True
            yield stream
            in_block = False
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if in_block and (error.errno not in _DISK_ERRORS or error.filename is not None):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
