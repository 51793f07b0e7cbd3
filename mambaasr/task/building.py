"""Build the classes of ours that a config names, on no memory, so that what is impossible is said.

A constructor knows which sizes fit each other; asking it takes seconds, a stage that fails hours.
"""

import re

from mambaasr.errors import UserError
from mambaasr.registry import CLASSES, load
from mambaasr.task.config import given_conf

# In the order of the data: the width of one is what the next one gets.
_SLOTS = {
    "asr": ("frontend", "encoder", "postencoder", "decoder"),
    "lm": ("lm",),
}
# Any number of tokens does: nothing depends on it.
_VOCABULARY = 100


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
    import torch

    # The width of what this package does not build itself: ESPnet's default.
    width = 80
    for slot, name in chosen.items():
        conf = dict(config.get(f"{slot}_conf") or {}) | dict(given_conf(f"{slot}_conf", given))
        if name not in CLASSES[slot]:
            width = conf.get("output_size", 256) if slot == "encoder" else width
            continue
        try:
            # A front end is small, and computes its filters here and now.
            with torch.device("cpu" if slot == "frontend" else "meta"):
                built = load(CLASSES[slot][name])(**_sizes(slot, width), **conf)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
            message = " ".join(str(error).split())
            key = next((key for key in conf if re.search(rf"\b{key}\b", message)), None)
            place = _place(parts, given, slot, key)
            raise UserError(f"{place}: {slot}_conf: {message} ({slot}: {name})") from error
        width = built.output_size() if slot not in ("decoder", "lm") else width


def _sizes(slot, width):
    """What ESPnet gives to a class itself."""
    if slot == "decoder":
        return {"vocab_size": _VOCABULARY, "encoder_output_size": width}
    if slot == "lm":
        return {"vocab_size": _VOCABULARY}
    return {} if slot == "frontend" else {"input_size": width}


def _last(given, slot, value):
    return given[slot][-1] if given.get(slot) else value


def _place(parts, given, slot, key):
    """Where an option was given; of several places that which wins."""
    option = f"{slot}_conf"
    if key is not None and key in dict(given_conf(option, given)):
        return f"--{option}"
    for _, part in reversed(parts):
        if key is not None and key in (part.get(option) or {}):
            return part.where(option, key)
    for _, part in reversed(parts):
        if slot in part:
            return part.where(slot)
    return " + ".join(str(path) for path, _ in parts)
