"""Build the classes of ours that a config names, on no memory, so that what is impossible is said.

A constructor knows which sizes fit each other; asking it takes seconds, a stage that fails hours.
"""

import re

from mambaasr.errors import UserError
from mambaasr.model.options import check_options
from mambaasr.registry import CLASSES, load
from mambaasr.task.config import lay_over, read_conf

# In the order of the data: the width of one is what the next one gets.
_SLOTS = {
    "asr": ("frontend", "encoder", "postencoder", "decoder", "model", "scheduler"),
    "lm": ("lm", "scheduler"),
}
# Any number of tokens does: nothing depends on it.
_VOCABULARY = 100
# ESPnet's encoders that are 256 wide unless they are told; of others the width is not known here.
_WIDE_256 = "conformer transformer branchformer e_branchformer".split()


def check(parts, config, given, task="asr"):
    """Build our classes of a config on torch's meta device.

    Args:
        parts: list of ``(path, Config)`` that the config was merged from, the last one winning.
        config: the parts merged.
        given: option -> words of the command line over them, as
            :func:`mambaasr.task.config.check_command` returns them.
        task: "asr" or "lm".

    Raises:
        UserError: names file and line, or the command line, the option and what is allowed.
    """
    chosen = {slot: _last(given, slot, config.get(slot)) for slot in _SLOTS[task]}
    if not any(name in CLASSES[slot] for slot, name in chosen.items()):
        return
    # The width of what this package does not build itself: ESPnet's default; None: not known.
    width = 80
    for slot, name in chosen.items():
        option = f"{slot}_conf"
        conf = lay_over(config.get(option), option, given.get(option, ()))
        if name not in CLASSES[slot]:
            if slot == "encoder":
                width = conf.get("output_size", 256 if name in _WIDE_256 else None)
            continue
        if width is None and slot in ("postencoder", "decoder"):
            continue
        try:
            width = _build(slot, CLASSES[slot][name], conf, width)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            place = _place(parts, given, slot, _key(conf, message))
            raise UserError(f"{place}: {option}: {message} ({slot}: {name})") from error


def _build(slot, target, conf, width):
    """Build a class with what ESPnet gives it; return the width of what it hands on."""
    import torch

    if slot == "model":
        # Its parts are built by themselves.
        check_options(**conf, complete=False)
        return width
    made = load(target)
    if slot == "scheduler":
        made(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), **conf)
        return width
    sizes = {} if slot == "frontend" else {"input_size": width}
    if slot in ("decoder", "lm"):
        sizes = {"vocab_size": _VOCABULARY}
    if slot == "decoder":
        sizes["encoder_output_size"] = width
    # A front end is small, and computes its filters here and now.
    with torch.device("cpu" if slot == "frontend" else "meta"):
        built = made(**sizes, **conf)
    return width if slot in ("decoder", "lm") else built.output_size()


def _last(given, slot, value):
    return given[slot][-1] if given.get(slot) else value


def _keys(conf, above=()):
    """Yield the keys down to every value of nested mappings, and to the mappings."""
    for key, value in conf.items():
        yield (*above, str(key))
        if isinstance(value, dict):
            yield from _keys(value, (*above, str(key)))


def _key(conf, message):
    """Return the keys down to the option that a message names first, or none."""
    found = [
        (match.start(), keys)
        for keys in _keys(conf)
        if (match := re.search(rf"\b{re.escape(keys[-1])}\b", message))
    ]
    return min(found, key=lambda each: each[0], default=(0, ()))[1]


def _place(parts, given, slot, keys):
    """Where an option was given; of several places that which wins."""
    option = f"{slot}_conf"
    for text in reversed(given.get(option, ()) if keys else ()):
        there, value = read_conf(option, text)
        if tuple(there) == keys[: len(there)] if there else keys[0] in value:
            return f"--{option}"
    for _, part in reversed(parts):
        if keys and (option, *keys) in part.lines:
            return part.where(option, *keys)
    # It is a default that does not fit what the last block gives.
    for _, part in reversed(parts):
        for wanted in (option, slot):
            if (wanted,) in part.lines:
                return part.where(wanted)
    return " + ".join(str(path) for path, _ in parts)
