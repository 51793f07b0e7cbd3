"""Say what ESPnet's tasks and the classes that a config may name accept; see config/schema.py."""

import contextlib
import inspect
import json
import sys
import types
import typing
from typing import Any

from mambaasr.config.check import describe_option

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


def main() -> None:
    """Print what the tasks accept, in one line of JSON, the last one."""
    with contextlib.redirect_stdout(sys.stderr):
        from mambaasr.task.asr import ASRTask
        from mambaasr.task.lm import LMTask

        found = {"asr": _of_task(ASRTask), "lm": _of_task(LMTask)}
    print("\n" + json.dumps(found), end="")


def _of_task(task):
    from mambaasr.espnet_compat import CTC, JointNetwork, choices

    parser = task.get_parser()
    options = {action.dest: describe_option(action) for action in parser._actions}
    found = {each.name: (each.default, each.classes) for each in task.class_choices_list}
    for slot in ("optim", "scheduler"):
        found[slot] = (parser.get_default(slot), choices(slot))
    for slot, made in (("ctc", CTC), ("joint_net", JointNetwork)):
        if f"{slot}_conf" in options:
            found[slot] = (slot, {slot: made})
    slots = {
        slot: {
            "default": default,
            "classes": {name: of_class(slot, made) for name, made in classes.items()},
            "targets": {n: f"{made.__module__}:{made.__name__}" for n, made in classes.items()},
        }
        for slot, (default, classes) in found.items()
    }
    return {"options": options, "slots": slots}


def of_class(slot: str, made: type) -> dict[str, Any]:
    """Return the options of a class that a config gives; see config/schema.py for the form.

    Args:
        slot: where the class is chosen; what ESPnet gives there itself is left out.
        made: the class.
    """
    found = _options(made)
    for name in _GIVEN.get(slot, ()):
        found.pop(name, None)
    if slot in ("ctc", "joint_net", "preprocessor"):  # ESPnet gives these what they need
        for each in found.values():
            each.pop("required", None)
    return found


def _options(made):
    """Return the options of a class, those of its bases too where it passes the rest on."""
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
        return keys
    _, *above = (each for each in made.__mro__ if "__init__" in vars(each))
    if above[0].__module__.partition(".")[0] not in ("espnet2", "mambaasr"):
        return keys | {"**": {}}
    return _options(above[0]) | keys


def _option(parameter):
    """Return whether an argument must be given, the plain types that it may have, and its choices.

    Of a name the choices stand in its annotation: ``Annotated[str, NORMS]``.
    """
    annotation = parameter.annotation
    found: dict[str, Any] = {}
    if parameter.default is parameter.empty:
        found["required"] = True
    if typing.get_origin(annotation) is typing.Annotated:
        found["choices"] = list(annotation.__metadata__[0])
        annotation = annotation.__origin__
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    parts = set(typing.get_args(annotation) if union else (annotation,)) - {types.NoneType}
    if parts and parts <= {int, float, bool, str}:
        found["kinds"] = sorted(part.__name__ for part in parts)
    return found


def _add_mixer(keys, default):
    """Add what stands in ``mixer_conf`` and, in old yamls, beside it, whichever mixer is chosen."""
    from mambaasr.layers.mixer_conf import MIXERS, CausalMixerConf, MixerConf

    conf = MixerConf if "direction" in (default or {}) else CausalMixerConf
    below: dict[str, Any] = {}
    for made in (*MIXERS.values(), conf):
        below |= _options(made)
    below = {name: below[name] for name in below if name not in ("d_model", "options")}
    if default:  # of a class that has them all there
        keys["mixer_conf"]["below"] = below
    keys |= {key: below[name] for key, name in conf.flat.items() if key in keys}
