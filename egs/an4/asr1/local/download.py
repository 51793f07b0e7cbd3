"""Download an archive and unpack it, whole or not at all."""

import http.client
import os
import shutil
import tarfile
import tempfile
import urllib.request
import zlib
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

BLOCK = 1 << 16


def download(url, path, timeout=60):
    """Download ``url`` to ``path`` unless the file is already there.

    The file appears under its name only when all of it has arrived. A broken download starts
    again: archives that GitHub makes on the fly cannot be resumed in the middle.

    Raises:
        UserError: the server cannot be reached, refuses, or the download ends early.
    """
    path = Path(path)
    if path.exists():
        return
    print(f"downloading {url}")
    with (
        _network_errors(url),
        urllib.request.urlopen(url, timeout=timeout) as response,
        atomic_write(path, "wb") as out,
    ):
        total = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=total or None, unit="B", unit_scale=True, desc=path.name) as bar:
            while block := _read(url, response):
                out.write(block)
                bar.update(len(block))
        if total and bar.n != total:
            raise UserError(f"{url}: the download ended after {bar.n} of {total} bytes; try again")


def _read(url, response):
    # Named here: the block around it would not know that it was the network.
    with _network_errors(url):
        return response.read(BLOCK)


@contextmanager
def _network_errors(url):
    """Turn what goes wrong on the network into an error that names the address."""
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UserError(f"{url}: cannot be downloaded: {error}") from error


def unpack(archive, folder, check=None):
    """Unpack a tar archive that holds one top folder, so that its content becomes ``folder``.

    Everything is unpacked beside ``folder`` first and renamed at the end, so that a folder that
    is there is complete. Only plain files and folders inside the archive's own tree are taken.

    Args:
        archive: the file.
        folder: the folder to make.
        check: function that is given the unpacked folder before it gets its name; what it raises
            leaves nothing behind.

    Raises:
        UserError: the archive is damaged, has no single top folder, or holds links, devices or
            names that lead out of it.
    """
    archive, folder = Path(archive), Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter=_plain_files)
            # gzip's checksum stands behind everything, where tarfile does not look by itself.
            while tar.fileobj.read(BLOCK):
                pass
        tops = list(temporary.iterdir())
        if len(tops) != 1 or not tops[0].is_dir():
            names = ", ".join(sorted(top.name for top in tops)) or "nothing"
            raise UserError(f"{archive}: one top folder was expected, found {names}")
        if check is not None:
            check(tops[0])
        os.replace(tops[0], folder)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}; download it again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _plain_files(member, path):
    """Apply tarfile's "data" filter, and refuse links: no corpus of plain audio needs them."""
    if member.issym() or member.islnk():
        raise tarfile.LinkOutsideDestinationError(member, member.linkname)
    return tarfile.data_filter(member, path)
