"""Check a training's config and command line before anything heavy is imported."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from mambaasr.config.criteria import NOTHING, check_criteria
from mambaasr.config.read import Config, read
from mambaasr.config.schema import schema
from mambaasr.errors import UserError

# ESPnet's str2bool.
_TRUE = ("y", "yes", "t", "true", "on", "1")
_FALSE = ("n", "no", "f", "false", "off", "0")


def check_training(
    config: Config, words: Sequence[str] = (), task: str = "asr", build: bool = False
) -> Config:
    """Check a merged config and further options as a training would.

    A normalisation that the statistics give need not be there yet.

    Args:
        config: see :func:`mambaasr.config.merge`; not changed.
        words: of the training's command line, over the config.
        task: "asr" or "lm".
        build: whether to build our classes too, so that an impossible size is named; this
            imports torch.

    Returns:
        the config with the words laid over it; their single values stay texts.

    Raises:
        UserError: names file and line, or the option of the command line, and what is allowed.
    """
    whole = _lay_over(config, _parse(words, task), task)
    _check(whole, task, collecting=True)
    if build:
        from mambaasr.config.build import build_classes

        build_classes(whole, task)
    return whole


def check_command(argv: Sequence[str], task: str = "asr") -> Config:
    """Check a program's arguments and the config they name, as :func:`check_training` does."""
    given = _parse(argv, task)
    path = given.pop("config", [None])[-1]
    whole = _lay_over(Config("command line") if path is None else read(path), given, task)
    _check(whole, task, is_true(whole.get("collect_stats")))
    return whole


def is_true(value: object) -> bool:
    """Say whether a switch is on: a config's value, or one of ESPnet's texts for it."""
    return str(value).lower() in _TRUE


def _parse(words, task):
    """Split a command line into option -> texts without knowing their types."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options = schema(task)["options"]
    for name in options:
        parser.add_argument(f"--{name}", action="extend", nargs="*", default=argparse.SUPPRESS)
    known, unknown = parser.parse_known_args(words)
    for word in unknown:
        if not word.startswith("--"):
            raise UserError(f"what does `{word}` belong to? Options look like --name value")
        name = word.partition("=")[0]
        near = _nearest(name[2:].replace("-", "_"), options, "--")
        raise UserError(f"there is no option {name}{near}; see mambaasr {task}_train --help_all")
    return vars(known)


def _lay_over(config, given, task):
    """Return a copy of a config with a command line's options over it."""
    whole, options = config.copy(), schema(task)["options"]
    for name, texts in given.items():
        if not name.endswith("_conf"):
            value = texts if options[name]["several"] else (texts or [None])[-1]
            whole.put((name,), value, f"--{name}")
        for text in texts if name.endswith("_conf") else ():
            whole.lay_over(name, text)
    return whole


def _check(config, task, collecting):
    """Check a whole config: its options, the classes that it chooses and their options."""
    accepted = schema(task)
    check_options(config, accepted["options"])
    for slot, choice in accepted["slots"].items():
        name, option = config.get(slot, choice["default"]), f"{slot}_conf"
        if str(name).lower() in NOTHING:
            continue
        found = choice["classes"][name.lower()]
        conf = {} if config.get(option) is None else config[option]
        _check_keys(config, (option,), conf, found, f" ({slot}: {name})" if slot != name else "")
        # Statistics come before what is made of them: a normalisation lacks its file.
        for key in {} if collecting and slot == "normalize" else found["keys"]:
            if found["keys"][key].get("required") and key not in conf:
                raise UserError(f"{config.where(slot)}: {slot} `{name}` needs {option}: `{key}`")
    if task == "asr":
        check_criteria(config)


def check_options(config: Config, options: Mapping[str, dict]) -> None:
    """Check a config's top level by option -> :func:`describe_option`; a UserError names lines."""
    for key, value in config.items():
        if key not in options:
            near = _nearest(key, options)
            raise UserError(f"{config.where(key)}: there is no option `{key}`{near}")
        problem = _problem(key, value, options[key]["kind"] or "", options[key]["choices"])
        if problem and value is not None and not options[key]["several"]:
            raise UserError(f"{config.where(key)}: {problem}")


def describe_option(action: argparse.Action) -> dict[str, Any]:
    """Return the name of an option's type, its choices, and whether it takes several values."""
    return {
        "kind": getattr(action.type, "__name__", None),
        "choices": action.choices and list(action.choices),
        "several": action.nargs is not None or "Append" in type(action).__name__,
    }


def _check_keys(config, keys, conf, accepted, chosen):
    """Check the options in a mapping, and those in the mappings below it."""
    owner = ".".join(keys)
    if not isinstance(conf, Mapping):
        raise UserError(f"{config.where(*keys)}: {owner} holds `key: value` lines, found {conf!r}")
    for key, value in conf.items():
        option, where = accepted["keys"].get(key, {}), config.where(*keys, str(key))
        if key not in accepted["keys"] and not accepted["open"]:
            near = _nearest(key, accepted["keys"])
            raise UserError(f"{where}: {owner} has no option `{key}`{near}{chosen}")
        if "below" in option and value is not None:
            _check_keys(config, (*keys, key), value, option["below"], chosen)
        kinds, kind = option.get("kinds"), type(value).__name__
        fits = kinds is None or kind in kinds or (kind == "int" and "float" in kinds)
        if value is not None and not fits:
            allowed = " or ".join(kinds)
            raise UserError(f"{where}: {owner}: `{key}` must be {allowed}, found {value!r}")
        if value is not None and value not in option.get("choices", [value]):
            near = _nearest(value, option["choices"])
            raise UserError(f"{where}: {owner}: {key} `{value}` is unknown{near}{chosen}")


def _problem(key, value, kind, choices):
    """Say what is wrong with a top-level value, which ESPnet reads as if it were a text."""
    text = str(value).lower()
    if text in NOTHING and (kind.endswith("_or_none") or None in (choices or ())):
        return None
    number = {"int": int, "float": float}.get(kind.removesuffix("_or_none"))
    if number is not None:
        try:
            good = not isinstance(value, bool) and float(value) == number(value)
        except (ArithmeticError, TypeError, ValueError):
            good = False
        return None if good else f"`{key}` must be {number.__name__}, found {value!r}"
    if kind == "str2bool" and text not in _TRUE + _FALSE:
        return f"`{key}` is true or false, found {value!r}"
    if choices and text not in [str(each).lower() for each in choices]:
        return f"{key} `{value}` is unknown{_nearest(text, [each for each in choices if each])}"
    return None


def _nearest(name, allowed, prefix=""):
    """Say what was probably meant, and what is allowed unless that is a very long list."""
    near = difflib.get_close_matches(str(name), allowed, 1, 0.6)
    text = f"; did you mean `{prefix}{near[0]}`?" if near else ""
    if len(allowed) <= 60:
        text += f"{'' if near else ';'} allowed: {', '.join(sorted(allowed)) or 'nothing'}"
    return text
