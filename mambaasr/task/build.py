"""Build the classes of ours that a config names, on no memory, so that what is impossible is said.

A constructor knows which sizes fit each other; asking it takes seconds, a stage that fails hours.
"""

import inspect
import re

from mambaasr.config.read import Config
from mambaasr.errors import UserError
from mambaasr.model.options import check_options
from mambaasr.registry import CLASSES, load

# In the order of the data: the width of one is what the next one gets.
_SLOTS = {
    "asr": ("frontend", "encoder", "postencoder", "decoder", "model", "scheduler"),
    "lm": ("lm", "scheduler"),
}
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
    width: int | None = 80  # of ESPnet's default front end; None: not known
    for slot in _SLOTS[task]:
        name, option = config.get(slot), f"{slot}_conf"
        conf = config.get(option) or {}
        if name not in CLASSES[slot]:
            if slot == "encoder":
                width = conf.get("output_size", 256 if name in _WIDE_256 else None)
        elif width is not None or slot not in ("postencoder", "decoder"):
            try:
                width = _build(slot, CLASSES[slot][name], conf, width)
            except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
                message = " ".join(str(error).split())
                place = _place(config, option if conf else slot, message)
                raise UserError(f"{place}: {option}: {message} ({slot}: {name})") from error


def _build(slot, target, conf, width):
    """Build a class with what ESPnet gives it; return the width of what it hands on."""
    import torch

    if slot == "model":  # its parts are built by themselves
        check_options(**conf, complete=False)
        return width
    made = load(target)
    given = {"input_size": width, "encoder_output_size": width, "vocab_size": 100}
    if slot == "scheduler":
        given = {"optimizer": torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)}
    taken = inspect.signature(made).parameters
    # A front end is small, and computes its filters here and now.
    with torch.device("cpu" if slot in ("frontend", "scheduler") else "meta"):
        built = made(**{key: given[key] for key in given if key in taken}, **conf)
    return built.output_size() if slot in ("frontend", "encoder", "postencoder") else width


def _place(config, option, message):
    """Return where the option that a message names first was written; else a default is wrong."""
    found = [
        (match.start(), keys)
        for keys in config.places
        if keys[0] == option and (match := re.search(rf"\b{re.escape(keys[-1])}\b", message))
    ]
    return config.where(*min(found, default=(0, (option,)))[1])
