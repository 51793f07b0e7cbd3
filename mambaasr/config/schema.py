"""What a training accepts: asked of ESPnet's parsers and of the classes, once, then cached.

Importing ESPnet's tasks takes many seconds, so a process of its own does it and a file in the
user's cache keeps the answer for as long as the versions and our sources stay.
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

TASKS = ("asr", "lm")
_PACKAGE = Path(__file__).resolve().parent.parent
# Where our classes and options come from.
_SOURCES = "config/schema.py registry.py espnet_compat.py task/optim.py".split()
_ROOMS = "frontend encoder postencoder decoder lm model optim layers".split()

# What ESPnet's build_model and main_worker give to each class themselves.
_GIVEN = {
    "encoder": {"input_size"},
    "postencoder": {"input_size"},
    "decoder": {"vocab_size", "encoder_output_size"},
    "lm": {"vocab_size"},
    "ctc": {"odim", "encoder_output_size"},
    "joint_net": {"vocab_size", "encoder_size", "decoder_size"},
    "optim": {"params"},
    "scheduler": {"optimizer"},
    "model": {
        "vocab_size", "token_list", "frontend", "specaug", "normalize", "preencoder", "encoder",
        "postencoder", "decoder", "ctc", "joint_network", "lm",
    },
}  # fmt: skip


def schema(task: str) -> dict[str, Any]:
    """Return what a task's config may hold.

    Args:
        task: "asr" or "lm".

    Returns:
        ``options``: name -> {kind: name of its argparse type, choices, several}; ``slots``: name
        (encoder, optim, ...; ctc and joint_net, whose class is fixed) -> {default, classes: yaml
        name -> options of the class}. Options of a class are {open: whether it takes any other,
        keys: name -> {required, kinds: plain types, below: options of a mapping}}.

    Raises:
        UserError: ESPnet or one of our classes cannot be imported.
    """
    return _schemas()[task]


@functools.cache
def _schemas():
    key = _key()
    for path in _places():
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["key"] == key:
                return found
    if sys.stderr.isatty():
        print("asking ESPnet for its options, once for these versions ...", file=sys.stderr)
    found = {"key": key, **_ask()}
    for path in _places():
        with contextlib.suppress(UserError, OSError), atomic_write(path) as stream:
            json.dump(found, stream)
            return found
    print("no folder for a cache can be written: set XDG_CACHE_HOME", file=sys.stderr)
    return found


def _key():
    """Return what the answer depends on."""
    digest = hashlib.sha256()
    rooms = (path for room in _ROOMS for path in sorted((_PACKAGE / room).glob("*.py")))
    for path in [*(_PACKAGE / name for name in _SOURCES), *rooms]:
        digest.update(path.read_bytes())
    key = {"python": sys.version, "sources": digest.hexdigest()}
    for package in ("espnet", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            key[package] = metadata.version(package)
    spec = importlib.util.find_spec("espnet2")
    return key | {"espnet2": str(spec and spec.origin)}


def _places() -> Iterator[Path]:
    """Yield where the cache may lie, one file for each place of the package and environment."""
    name = hashlib.sha256(f"{_PACKAGE}\0{sys.prefix}".encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    for folder in (Path(cache) / "mambaasr", _PACKAGE / "config" / "cache"):
        yield folder / f"config-{name}.json"


def _ask():
    """Let a process import ESPnet from the very places that this one imports from."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _answer; _answer()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.rpartition("\n")[2])
    except ValueError:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise UserError(f"ESPnet cannot be asked for its options: {last}") from None


def _answer():
    with contextlib.redirect_stdout(sys.stderr):
        from mambaasr.task.asr import ASRTask
        from mambaasr.task.lm import LMTask

        found = {task: _of_task(made) for task, made in zip(TASKS, (ASRTask, LMTask), strict=True)}
    print("\n" + json.dumps(found), end="")


def _of_task(task):
    from espnet2.asr.ctc import CTC
    from espnet2.asr_transducer.joint_network import JointNetwork

    from mambaasr.espnet_compat import choices

    parser = task.get_parser()
    options = {
        action.dest: {
            "kind": getattr(action.type, "__name__", None),
            "choices": action.choices and list(action.choices),
            "several": action.nargs is not None or "Append" in type(action).__name__,
        }
        for action in parser._actions
    }
    found = {each.name: (each.default, each.classes) for each in task.class_choices_list}
    for slot in ("optim", "scheduler"):
        found[slot] = (parser.get_default(slot), choices(slot))
    for slot, made in (("ctc", CTC), ("joint_net", JointNetwork)):
        if f"{slot}_conf" in options:
            found[slot] = (slot, {slot: made})
    slots = {
        slot: {"default": default, "classes": {n: _of_class(slot, m) for n, m in classes.items()}}
        for slot, (default, classes) in found.items()
    }
    return {"options": options, "slots": slots}


def _of_class(slot, made):
    found = _options(made)
    for name in _GIVEN.get(slot, ()):
        found["keys"].pop(name, None)
    if slot in ("ctc", "joint_net", "preprocessor"):  # ESPnet gives these what they need
        for each in found["keys"].values():
            each.pop("required", None)
    return found


def _options(made):
    """Return the options of a class, those of its bases too where it passes the rest on."""
    import inspect

    try:
        parameters = inspect.signature(made, eval_str=True).parameters.values()
    except NameError:  # an annotation that only a type checker can resolve
        parameters = inspect.signature(made).parameters.values()
    except (TypeError, ValueError):
        return {"open": True, "keys": {}}
    keys = {
        each.name: _of_annotation(each.annotation)
        | ({"required": True} if each.default is each.empty else {})
        for each in parameters
        if each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    }
    if not any(each.kind is each.VAR_KEYWORD for each in parameters):
        return {"open": False, "keys": keys}
    own = next((each for each in made.__mro__ if "__init__" in vars(each)), object)
    above = made.__mro__[made.__mro__.index(own) + 1 :]
    base = next((each for each in above if "__init__" in vars(each) and each is not object), None)
    if base is None or base.__module__.startswith("torch."):
        return {"open": True, "keys": keys}
    inherited = _options(base)
    return {"open": inherited["open"], "keys": inherited["keys"] | keys}


def _of_annotation(annotation):
    """Return the plain types that an annotation allows, or the options of its dataclass."""
    import dataclasses
    import types
    import typing

    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = typing.get_args(annotation) if union else (annotation,)
    parts = [part for part in parts if part is not types.NoneType]
    for part in parts:
        if dataclasses.is_dataclass(part):
            return {"below": _options(part)}
    if parts and all(part in (int, float, bool, str) for part in parts):
        return {"kinds": [part.__name__ for part in parts]}
    return {}
