"""Build the classes of ours that a config names, on no memory, so that what is impossible is said.

A constructor knows which sizes fit each other; asking it takes seconds, a stage that fails hours.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mambaasr.config.read import Config
from mambaasr.errors import UserError
from mambaasr.model.options import check_options
from mambaasr.registry import CLASSES, load

# In the order of the data: the width of one is what the next one gets.
_SLOTS = {
    "asr": ("frontend", "encoder", "postencoder", "decoder", "model", "scheduler"),
    "lm": ("lm", "scheduler"),
}
# Any number of tokens does: nothing depends on it.
_VOCABULARY = 100
# ESPnet's encoders that are 256 wide by default; of others the width is not known here.
_WIDE_256 = ("conformer", "transformer", "branchformer", "e_branchformer")


def build_classes(config: Config, task: str = "asr") -> None:
    """Build our classes of a config on torch's meta device.

    Args:
        config: of a whole training.
        task: "asr" or "lm".

    Raises:
        UserError: names where the option was written, the option and what is allowed.
    """
    width = 80  # of what the next class gets: ESPnet's default front end; None: not known
    for slot in _SLOTS[task]:
        name, option = config.get(slot), f"{slot}_conf"
        conf = config.get(option) or {}
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
            # The option that is named first; else a default does not fit.
            named = [
                (match.start(), keys)
                for keys in _keys(conf, (option,))
                if (match := re.search(rf"\b{re.escape(keys[-1])}\b", message))
            ]
            keys = min(named)[1] if named else (option if conf else slot,)
            raise UserError(
                f"{config.where(*keys)}: {option}: {message} ({slot}: {name})"
            ) from error


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


def _keys(conf: Mapping[str, Any], above: tuple) -> Iterator[tuple]:
    """Yield the keys down to every value of nested mappings, and to the mappings."""
    for key, value in conf.items():
        yield (*above, str(key))
        if isinstance(value, dict):
            yield from _keys(value, (*above, str(key)))
