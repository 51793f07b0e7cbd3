"""Files that are either whole or absent."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

from mambaasr.errors import UserError


@contextmanager
def atomic_write(path, mode="w"):
    """Open a file that appears under ``path`` only when the block ends without an exception.

    The content is written beside ``path``, flushed to the disk and renamed, so a kill at any
    moment leaves either the old file or the new one.

    Args:
        path: the final path; its folder is made if needed.
        mode: "w" (UTF-8 text, LF) or "wb".

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    kwargs = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, mode, **kwargs) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes private files; a corpus or a model is shared like any other file.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
