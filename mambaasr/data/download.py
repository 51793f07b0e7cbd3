"""Download an archive and unpack it, whole or not at all."""

import hashlib
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import requests
from tqdm import tqdm

from mambaasr.errors import UserError


def download(
    url: str,
    path: str | Path,
    checksum: str | None = None,
    remedy: str = "try again",
    timeout: float = 60,
) -> None:
    """Download ``url`` to ``path`` unless the file is already there.

    What has arrived lies in ``<path>.part`` until it is all there; the next call goes on from it
    where the server can. (pooch would begin anew.)

    Args:
        url: the address.
        path: the file to make.
        checksum: "md5:..." or "sha256:..." of the whole file, compared when it arrives. None where
            none is promised, as for archives that are made on the fly: then what they unpack to is
            what to check, and nothing is gone on with.
        remedy: what the user can do where it fails.
        timeout: seconds that the server may be silent.

    Raises:
        UserError: the server cannot be reached, refuses, the download ends early, or what has
            arrived has another sum; then nothing of it is kept.
    """
    path = Path(path)
    if path.exists():
        return
    print(f"downloading {url}")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    if checksum is None:
        part.unlink(missing_ok=True)
    try:
        _fetch(url, part, timeout)
    except OSError as error:  # requests' own errors are of this kind
        if checksum is None:
            part.unlink(missing_ok=True)
        raise UserError(f"{url}: cannot be downloaded: {error}; {remedy}") from error
    if checksum is not None:
        kind, _, expected = checksum.partition(":")
        with open(part, "rb") as stream:
            found = hashlib.file_digest(stream, kind).hexdigest()
        if found != expected:
            part.unlink()
            raise UserError(f"{url}: its {kind} is {found}, not {expected}; {remedy}")
    part.rename(path)


def _fetch(url: str, part: Path, timeout: float) -> None:
    """Append to a file what it lacks of what a server has."""
    there = part.stat().st_size if part.exists() else 0
    # Some servers call an archive's own compression an encoding, which requests would undo.
    headers = {"Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    with requests.get(url, headers=headers, stream=True, timeout=timeout) as response:
        if there and response.status_code == requests.codes.range_not_satisfiable:
            return  # it was all there
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            there = 0
        size = int(response.headers.get("content-length", 0)) + there or None
        bar = tqdm(total=size, initial=there, unit="B", unit_scale=True, desc=part.stem)
        with bar, open(part, "ab" if there else "wb") as stream:
            for block in response.iter_content(1 << 16):
                stream.write(block)
                bar.update(len(block))


def lfs_checksum(url: str, remedy: str = "try again", timeout: float = 60) -> str | None:
    """Return the sum of a file that lies in Git LFS, as its repository notes it.

    Args:
        url: of what the repository holds in the file's place.
        remedy: what the user can do where it fails.
        timeout: seconds that the server may be silent.

    Returns:
        "sha256:...", as :func:`download` takes it; None for a file that is itself there.

    Raises:
        UserError: the server cannot be reached, or refuses.
    """
    try:
        with requests.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            head = next(response.iter_content(1000), b"")
    except OSError as error:
        raise UserError(f"{url}: cannot be downloaded: {error}; {remedy}") from error
    found = re.search(rb"^oid (sha256:[0-9a-f]{64})$", head, re.MULTILINE)
    return found[1].decode() if found else None


def unpack(
    archive: str | Path,
    folder: str | Path,
    check: Callable[[Path], None] | None = None,
    inner: str = "",
) -> None:
    """Unpack a tar archive that holds one top folder, so that its content becomes ``folder``.

    Everything is unpacked beside ``folder`` first and renamed at the end, so that a folder that
    is there is complete.

    Args:
        archive: the file.
        folder: the folder to make.
        check: function that is given the unpacked folder before it gets its name; what it raises
            leaves nothing behind.
        inner: the folder below the top one whose content is wanted; "" is the top one itself.

    Raises:
        UserError: the archive is damaged, has no single top folder or not that inner one, or holds
            devices, or names or links that lead out of it.
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
            whole = tops[0] / inner
            if not whole.is_dir():
                raise UserError(f"{archive}: there is no {tops[0].name}/{inner} in it")
            if check is not None:
                check(whole)
            os.replace(whole, folder)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            raise UserError(f"{archive}: cannot be unpacked: {error}; download it again") from error
