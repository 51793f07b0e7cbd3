"""What a training accepts: asked of ESPnet's parsers and of the classes, once, then cached.

Importing ESPnet's tasks takes many seconds, so a process of its own does it and a file in the
user's cache keeps the answer for as long as the versions and our sources stay.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

_ANSWER = "mambaasr.task.describe"
_PACKAGE = Path(__file__).resolve().parent.parent
# What the answer depends on, besides the versions: our classes and options.
_SOURCES = """frontend/*.py encoder/*.py postencoder/*.py decoder/*.py lm/*.py model/*.py optim/*.py
    layers/*.py task/*.py config/check.py configurable.py espnet_compat.py registry.py"""


def schema(task: str) -> dict[str, Any]:
    """Return what a task's config may hold.

    Args:
        task: "asr" or "lm".

    Returns:
        ``options``: those of the command line; ``slots``: name (encoder, optim, ...; ctc and
        joint_net, whose class is fixed) -> {default, classes: yaml name -> options of the class,
        targets: yaml name -> "module:Class"}.
        Options are name -> {required, several: whether it has several values, kinds: names of
        types, least, choices, below: options of a mapping}; ``**``: any other.

    Raises:
        UserError: ESPnet or one of our classes cannot be imported.
    """
    return _schemas()[task]


@functools.cache
def _schemas():
    name = hashlib.sha256(f"{_PACKAGE}\0{sys.prefix}".encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if not os.path.isabs(cache):  # a user without a home
        cache = tempfile.gettempdir()
    path, key = Path(cache, "mambaasr", f"config-{name}.json"), _key()
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found
    if sys.stderr.isatty():
        print("asking ESPnet for its options, once for these versions ...", file=sys.stderr)
    found = {"key": key, **_ask()}
    try:
        with atomic_write(path) as stream:
            json.dump(found, stream)
    except (UserError, OSError) as error:
        logging.warning(f"{error}; set XDG_CACHE_HOME, or ESPnet is asked for its options anew")
    return found


def _key():
    """Return what the answer depends on, as a digest."""
    try:
        versions = [sys.version, *map(metadata.version, ("espnet", "torch"))]
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{error.name} is not installed: run `make env`") from None
    # A version may lie in several places; ESPnet has the last two packages' optimisers if there.
    found = map(importlib.util.find_spec, ("espnet2", "torch_optimizer", "apex"))
    versions += [spec and spec.origin for spec in found]
    digest = hashlib.sha256(repr(versions).encode())
    for pattern in _SOURCES.split():
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _ask():
    """Let a process import ESPnet from the very places that this one imports from."""
    code = f"import sys; sys.path[:] = {sys.path!r}; import {_ANSWER} as task; task.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.rpartition("\n")[2])
    except ValueError:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise UserError(f"ESPnet cannot be asked for its options: {reason}") from None
