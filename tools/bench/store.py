"""Measurements on the disk: one JSON file a part, written whole after each cell."""

import hashlib
import json
from pathlib import Path

from mambaasr.files import atomic_write

ROOT = Path(__file__).resolve().parents[2]


def fingerprint():
    """Hash of all code that a measurement depends on: the package and the bench."""
    digest = hashlib.sha256()
    for folder in ("mambaasr", "tools/bench"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".h", ".cpp", ".txt") and path.is_file():
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class Store:
    """The cells of one part.

    A file of other code, of another machine or with other settings is not continued.

    Args:
        folder: where the files lie.
        part: name of the part.
        header: dict of what the figures depend on; "date" and "command" may differ.
        code: :func:`fingerprint`.
        anew: forget what is there.
    """

    def __init__(self, folder, part, header, code, anew=False):
        self.path = Path(folder) / f"{part}.json"
        self.data = {"part": part, "code": code, "header": header, "cells": {}}
        found = None if anew else read(self.path)
        if found and found.get("code") == code and self._same(found["header"], header):
            self.data["cells"] = found["cells"]
            self.data["header"] = found["header"]

    @staticmethod
    def _same(one, other):
        varying = {"date", "command", "commit"}
        return all(one.get(k) == other.get(k) for k in {*one, *other} - varying)

    @property
    def cells(self):
        """key -> what was measured."""
        return self.data["cells"]

    def add(self, key, value):
        """Keep a cell; a kill now or later does not lose it."""
        self.cells[key] = value
        with atomic_write(self.path) as stream:
            json.dump(self.data, stream, indent=1)


def read(path):
    """Return what a part's file holds, or None where there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
