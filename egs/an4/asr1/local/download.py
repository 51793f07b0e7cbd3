"""Download an archive and unpack it, whole or not at all."""

import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pooch

from mambaasr.errors import UserError


def download(url: str, path: str | Path, remedy: str = "try again", timeout: float = 60) -> None:
    """Download ``url`` to ``path`` unless the file is already there.

    The file appears under its name only when all of it has arrived. A broken download starts
    again: archives that GitHub makes on the fly cannot be resumed in the middle, nor do they have
    a stable sum, so what they unpack to is what to check.

    Args:
        url: the address.
        path: the file to make.
        remedy: what the user can do where it fails.
        timeout: seconds that the server may be silent.

    Raises:
        UserError: the server cannot be reached, refuses, or the download ends early.
    """
    path = Path(path)
    if not path.exists():
        print(f"downloading {url}")
    pooch.get_logger().setLevel("WARNING")
    get = pooch.HTTPDownloader(progressbar=True, timeout=timeout)
    try:
        pooch.retrieve(url, None, fname=path.name, path=path.parent, downloader=get)
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        raise UserError(f"{url}: cannot be downloaded: {error}; {remedy}") from error


def unpack(
    archive: str | Path, folder: str | Path, check: Callable[[Path], None] | None = None
) -> None:
    """Unpack a tar archive that holds one top folder, so that its content becomes ``folder``.

    Everything is unpacked beside ``folder`` first and renamed at the end, so that a folder that
    is there is complete.

    Args:
        archive: the file.
        folder: the folder to make.
        check: function that is given the unpacked folder before it gets its name; what it raises
            leaves nothing behind.

    Raises:
        UserError: the archive is damaged, has no single top folder, or holds devices, or names or
            links that lead out of it.
    """
    archive, folder = Path(archive), Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(temporary, filter="data")
                # gzip's checksum stands behind everything, where tarfile does not look by itself.
                while tar.fileobj is not None and tar.fileobj.read(1 << 16):
                    pass
            tops = list(Path(temporary).iterdir())
            if len(tops) != 1 or not tops[0].is_dir():
                names = ", ".join(sorted(top.name for top in tops)) or "nothing"
                raise UserError(f"{archive}: one top folder was expected, found {names}")
            if check is not None:
                check(tops[0])
            os.replace(tops[0], folder)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise UserError(f"{archive}: cannot be unpacked: {error}; download it again") from error
