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
from importlib import metadata
from pathlib import Path
from typing import Any

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

_PACKAGE = Path(__file__).resolve().parent.parent
# Where our classes and options come from.
_SOURCES = [
    f"{room}/*.py" for room in "frontend encoder postencoder decoder lm model optim".split()
]
_SOURCES += ["layers/*.py", "task/optim.py", "configurable.py", "espnet_compat.py", "registry.py"]

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
    "model": set("""vocab_size token_list frontend specaug normalize preencoder encoder postencoder
        decoder ctc joint_network lm""".split()),
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
    name = hashlib.sha256(f"{_PACKAGE}\0{sys.prefix}".encode()).hexdigest()[:16]
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    path, key = Path(cache, "mambaasr", f"config-{name}.json"), _key()
    with contextlib.suppress(OSError, ValueError, LookupError):
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
    """Return on what the answer depends."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for pattern in _SOURCES:
        for path in sorted(_PACKAGE.glob(pattern)):
            digest.update(path.read_bytes())
    espnet = importlib.util.find_spec("espnet2")  # a version may lie in several places
    return {
        "python": sys.version,
        "sources": digest.hexdigest(),
        "espnet": [metadata.version("espnet"), espnet and espnet.origin],
        "torch": metadata.version("torch"),
    }


def _ask():
    """Let a process import ESPnet from the very places that this one imports from."""
    code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import _answer; _answer()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    try:
        return json.loads(done.stdout.rpartition("\n")[2])
    except ValueError:
        reason = done.stderr.strip().rpartition("\n")[2] or f"exit status {done.returncode}"
        raise UserError(f"ESPnet cannot be asked for its options: {reason}") from None


def _answer():
    with contextlib.redirect_stdout(sys.stderr):
        from mambaasr.task.asr import ASRTask
        from mambaasr.task.lm import LMTask

        found = {"asr": _of_task(ASRTask), "lm": _of_task(LMTask)}
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
    """Return the options of a class that a config gives."""
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
        found = inspect.signature(made, eval_str=True).parameters
    except NameError:  # an annotation that only a type checker can resolve
        found = inspect.signature(made).parameters
    kinds = [each.kind for each in found.values()]
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    keys = {name: _option(each) for name, each in found.items() if each.kind in by_name}
    if "mixer_conf" in keys:
        _add_mixer(keys, found["mixer_conf"].default)
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        return {"open": False, "keys": keys}
    _, *above = (each for each in made.__mro__ if "__init__" in vars(each))
    if above[0].__module__.partition(".")[0] not in ("espnet2", "mambaasr"):
        return {"open": True, "keys": keys}
    inherited = _options(above[0])
    return {"open": inherited["open"], "keys": inherited["keys"] | keys}


def _option(parameter):
    """Return whether an argument must be given, and the plain types that it may have."""
    import types
    import typing

    annotation, found = parameter.annotation, {}
    if parameter.default is parameter.empty:
        found["required"] = True
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = set(typing.get_args(annotation) if union else (annotation,)) - {types.NoneType}
    if parts and parts <= {int, float, bool, str}:
        found["kinds"] = sorted(part.__name__ for part in parts)
    return found


def _add_mixer(keys, default):
    """Add what stands in ``mixer_conf`` and, in old yamls, beside it, whichever mixer is chosen."""
    from mambaasr.layers.mixer_conf import MIXERS, CausalMixerConf, MixerConf

    conf = MixerConf if "direction" in (default or {}) else CausalMixerConf
    below = {}
    for made in (*MIXERS.values(), conf):
        below |= _options(made)["keys"]
    below = {name: below[name] for name in below if name not in ("d_model", "options")}
    if default:  # of a class that has them all there
        keys["mixer_conf"]["below"] = {"open": False, "keys": below}
    keys |= {key: below[name] for key, name in conf.flat.items() if key in keys}
