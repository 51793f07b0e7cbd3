"""Short texts that change with the content of files and folders; which files a command names.

Audio and whole corpora are too much to be read: they are known by names, sizes and times.
"""

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from mambaasr.errors import UserError

# Text files and models of a usual size are read whole; above it a read would take seconds.
HASHED_BYTES = 256 * 2**20
# Of the files of a corpus these are known by name alone: there are millions.
AUDIO = {f".{kind}" for kind in "flac wav sph raw wv1 wv2 mp3 ogg opus m4a mp4 aac webm".split()}
# Where in an archive a record begins (mambaasr.data.ark).
_OFFSET = re.compile(rb"\.ark:\d+$")

_blake2b = functools.partial(hashlib.blake2b, digest_size=16)


def fingerprint(path: str | Path) -> str | None:
    """Return a short text that changes with a file's content, or None where nothing is.

    Files above 256 MiB are known by size and modification time, folders by all files below them
    but hidden and compiled ones.
    """
    path = Path(path)
    try:
        info = path.stat()
        if path.is_dir():
            inside = [one for one in sorted(path.iterdir()) if not one.name.startswith((".", "__"))]
            content = json.dumps([(one.name, fingerprint(one)) for one in inside])
            return _blake2b(content.encode()).hexdigest()
        if info.st_size > HASHED_BYTES:
            return f"size {info.st_size} mtime {info.st_mtime_ns}"
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, _blake2b).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def fingerprint_bytes(content: bytes) -> str:
    """Return the :func:`fingerprint` of a file with these bytes (below 256 MiB)."""
    return _blake2b(content).hexdigest()


def fingerprint_audio(path: str | Path) -> str | None:
    """Return a short text that changes with paths, sizes and times of what a ``wav.scp`` names.

    A file that is not there counts as such. None where there is no ``wav.scp``. Archives count as
    files, and each ``.ark:offset`` in them.
    """
    digest = _blake2b()
    try:
        with open(path, "rb") as lines:
            for line in lines:
                audio = line.split(None, 1)[-1].strip()
                try:
                    info = os.stat(_OFFSET.sub(b".ark", audio))
                    fact = b"%d %d" % (info.st_size, info.st_mtime_ns)
                except (OSError, ValueError):  # ValueError: a null byte in the path
                    fact = b"gone"
                digest.update(b"%s\0%s\n" % (audio, fact))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def fingerprint_corpus(folder: str | Path) -> str | None:
    """Return a short text for a folder that changes with the names of all files in it.

    Sizes and times count of those that are no audio, such as transcripts; what cannot be read is
    known as such. None where no folder is.
    """
    if not os.path.isdir(folder):
        return None
    digest = _blake2b()
    waiting, seen = [(str(folder), "")], set()
    while waiting:
        place, prefix = waiting.pop()
        try:
            info = os.stat(place)
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError:
            digest.update(os.fsencode(f"{prefix}\0unreadable\n"))
            continue
        if (info.st_dev, info.st_ino) in seen:  # a link back to where we were
            continue
        seen.add((info.st_dev, info.st_ino))
        for entry in entries:
            fact = _fact(entry)
            digest.update(os.fsencode(f"{prefix}{entry.name}\0{fact}\n"))
            if fact == "folder":
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
    return digest.hexdigest()


def _fact(entry: os.DirEntry[str]) -> str:
    """Return what counts of an entry of a folder beside its name."""
    try:
        if entry.is_dir():
            return "folder"
        if os.path.splitext(entry.name)[1].lower() in AUDIO:
            return "audio"
        info = entry.stat()
    except OSError:  # a link that leads nowhere, or to itself
        return "unreadable"
    return f"{info.st_size} {info.st_mtime_ns}"


def fingerprints(paths: Iterable[str | Path]) -> dict[str, str | None]:
    """Return ``{path: fingerprint}``, with a line for what a ``wav.scp`` or ``feats.scp`` names.

    An empty name is an option without its file, not the current folder.
    """
    found = {}
    for path in dict.fromkeys(map(Path, filter(None, paths))):
        found[str(path)] = fingerprint(path)
        if path.name in ("wav.scp", "feats.scp"):
            what = "audio" if path.name == "wav.scp" else "features"
            found[f"the {what} of {path}"] = fingerprint_audio(path)
    return found


def is_config(path: str | Path) -> bool:
    """Return whether a path has the suffix of a yaml file."""
    return str(path).endswith((".yaml", ".yml"))


def read_config(path: str | Path) -> dict:
    """Return the mapping in a yaml file; an empty one where it cannot be read as such."""
    try:
        with open(path, encoding="utf-8") as stream:
            values = yaml.safe_load(stream)
    except (OSError, ValueError, yaml.YAMLError):  # the command itself reports it
        return {}
    return values if isinstance(values, dict) else {}


def named_files(
    given: dict[str, list[list[str]]],
    inputs: Iterable[str | Path] = (),
    outputs: Iterable[str | Path] = (),
) -> list[str]:
    """Return the files that a command names, less what it makes.

    That is each word that is a file, also as ``key=FILE``, ``FILE,name,type`` and ``FILE:part``,
    inside a mapping or list, and in a yaml that is an input or stands behind ``--config``.

    Args:
        given: option -> words of each time that it is given.
        inputs, outputs: paths of what it reads and makes.
    """
    made = {os.path.abspath(path) for path in outputs}
    found, configs = {}, [path for path in inputs if is_config(path)]
    for option, values in given.items():
        for word in (word for value in values for word in value):
            found |= dict.fromkeys(_files_in(word))
            if option == "--config":
                configs.append(word)
    for config in configs:
        for text in _texts(read_config(config)):
            found |= dict.fromkeys(_files_in(text))
    return [path for path in found if os.path.abspath(path) not in made]


def _files_in(word: str) -> list[str]:
    if word[:1] in ("{", "["):
        try:
            return [path for text in _texts(yaml.safe_load(word)) for path in _files_in(text)]
        except (ValueError, RecursionError, yaml.YAMLError):
            return []
    parts = word, word.partition("=")[2], word.rsplit(",", 2)[0], word.partition(":")[0]
    return [part for part in dict.fromkeys(parts) if part and os.path.isfile(part)]


def _texts(values: object) -> Iterator[str]:
    """Yield the strings inside nested mappings and lists; keys are none."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, dict | list):
        for value in values.values() if isinstance(values, dict) else values:
            yield from _texts(value)
