"""Check a training's config and command line before anything heavy is imported."""

import argparse
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mambaasr.config.criteria import NOTHING, check_criteria, model_file
from mambaasr.config.read import Config, read
from mambaasr.config.schema import schema
from mambaasr.errors import UserError

# ESPnet's str2bool.
_TRUE = ("y", "yes", "t", "true", "on", "1")
_FALSE = ("n", "no", "f", "false", "off", "0")
_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


@dataclass(frozen=True)
class Facts:
    """What is known of a training before it runs.

    Attributes:
        config: the config with the command line laid over it; single values of the command line
            stay texts.
        model: the class that ``model`` names, "espnet" by default.
        model_file: name of the file that the best epochs are averaged into.
    """

    config: Config
    model: str
    model_file: str


def check_training(
    config: Config, words: Sequence[str] = (), task: str = "asr", build: bool = False
) -> Facts:
    """Check a merged config and further options as a training would.

    A normalisation that the statistics give need not be there yet.

    Args:
        config: see :func:`mambaasr.config.merge`; not changed.
        words: of the training's command line, over the config.
        task: "asr" or "lm".
        build: whether to build our classes too, so that an impossible size is named; this
            imports torch.

    Raises:
        UserError: names file and line, or the option of the command line, and what is allowed.
    """
    whole = _lay_over(config, _parse(words, task), task)
    _check(whole, task, collecting=True)
    if build:
        from mambaasr.config.build import build_classes

        build_classes(whole, task)
    return Facts(whole, str(whole.get("model") or "espnet"), model_file(whole))


def check_command(argv: Sequence[str], task: str = "asr") -> Config:
    """Check the arguments of a training or of statistics, and the config that they name.

    Args:
        argv: without the program's name.
        task: "asr" or "lm".

    Returns:
        the config with the arguments laid over it; their single values stay texts.

    Raises:
        UserError: names file and line, or the option of the command line, and what is allowed.
    """
    given = _parse(argv, task)
    path = given.pop("config", [None])[-1]
    config = Config("command line") if path is None else read(path)
    whole = _lay_over(config, given, task)
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
        parser.add_argument(f"--{name}", action="append", nargs="*", default=argparse.SUPPRESS)
    known, unknown = parser.parse_known_args(words)
    for word in unknown:
        name = word.partition("=")[0]
        if name.startswith("--"):
            near = _nearest(name[2:].replace("-", "_"), options, "--")
            raise UserError(
                f"there is no option {name}{near}; see mambaasr {task}_train --help_all"
            )
        raise UserError(f"what does `{word}` belong to? Options look like --name value")
    return {
        name: [text for texts in groups for text in texts] for name, groups in vars(known).items()
    }


def _lay_over(config, given, task):
    """Return a copy of a config with a command line's options over it."""
    whole = config.copy()
    for name, texts in given.items():
        if name.endswith("_conf"):
            for text in texts:
                whole.lay_over(name, text)
        elif schema(task)["options"][name]["several"]:
            whole.put((name,), texts, f"--{name}")
        else:
            whole.put((name,), texts[-1] if texts else None, f"--{name}")
    return whole


def _check(config, task, collecting):
    """Check a whole config: its options, the classes that it chooses and their options."""
    options = schema(task)["options"]
    for key, value in config.items():
        if key not in options:
            near = _nearest(key, options)
            raise UserError(f"{config.where(key)}: there is no option `{key}`{near}")
        problem = _problem(value, **options[key])
        if problem:
            raise UserError(f"{config.where(key)}: `{key}` {problem}")
    for slot, choice in schema(task)["slots"].items():
        name = config.get(slot, choice["default"])
        if str(name).lower() in NOTHING:
            continue
        name = name.lower() if isinstance(name, str) else name
        if not isinstance(name, str) or name not in choice["classes"]:
            near = _nearest(name, choice["classes"])
            raise UserError(f"{config.where(slot)}: {slot} `{name}` is unknown{near}")
        # Statistics come before what is made of them: a normalisation lacks its file.
        complete = not (collecting and slot == "normalize")
        _check_class(config, slot, name, choice["classes"][name], complete)
    if task == "asr":
        check_criteria(config)


def _check_class(config, slot, name, accepted, complete):
    """Check the options of one chosen class: known, of the right kind, none missing."""
    option = f"{slot}_conf"
    chosen = f" ({slot}: {name})" if slot != name else ""
    conf = config.get(option)
    _check_keys(config, (option,), {} if conf is None else conf, accepted, chosen)
    for key, each in accepted["keys"].items():
        if each.get("required") and complete and not accepted["open"] and key not in (conf or {}):
            raise UserError(f"{config.where(slot)}: {slot} `{name}` needs {option}: `{key}`")


def _check_keys(config, keys, conf, accepted, chosen):
    """Check the options in a mapping, and those in the mappings below it."""
    place, owner = config.where(*keys), ".".join(keys)
    if not isinstance(conf, Mapping):
        raise UserError(f"{place}: {owner} holds `key: value` lines, found {conf!r}")
    for key, value in conf.items():
        each, where = accepted["keys"].get(key), config.where(*keys, str(key))
        if each is None:
            if accepted["open"]:
                continue
            near = _nearest(key, accepted["keys"])
            raise UserError(f"{where}: {owner} has no option `{key}`{near}{chosen}")
        if value is None:
            continue
        if "below" in each:
            _check_keys(config, (*keys, key), value, each["below"], chosen)
        kinds = each.get("kinds")
        if kinds and not any(_is_a(value, kind) for kind in kinds):
            allowed = " or ".join(kinds)
            raise UserError(f"{where}: {owner}: `{key}` must be {allowed}, found {value!r}")


def _is_a(value, kind):
    return isinstance(value, _TYPES[kind]) and (kind == "bool") == isinstance(value, bool)


def _problem(value: Any, kind: str | None, choices: list | None, several: bool) -> str | None:
    """Say what is wrong with a top-level value, which ESPnet reads as if it were a text."""
    text = str(value).lower()
    if value is None or several or (text in NOTHING and f"{kind}".endswith("_or_none")):
        return None
    kind = (kind or "").removesuffix("_or_none")
    if kind in ("int", "float"):
        try:
            if not isinstance(value, bool) and float(value) == {"int": int}.get(kind, float)(value):
                return None
        except (TypeError, ValueError):
            pass
        return f"must be {kind}, found {value!r}"
    if kind == "str2bool" and text not in _TRUE + _FALSE:
        return f"is true or false, found {value!r}"
    if choices and text not in [str(each).lower() for each in choices]:
        allowed = [each for each in choices if each is not None]
        return f"cannot be {value!r}{_nearest(str(value), allowed)}"
    return None


def _nearest(name, allowed, prefix=""):
    """Say what was probably meant, and what is allowed unless that is a very long list."""
    allowed = [str(item) for item in allowed]
    near = difflib.get_close_matches(str(name), allowed, 1, 0.6)
    text = f"; did you mean `{prefix}{near[0]}`?" if near else ""
    if len(allowed) <= 60:
        text += f"{'' if near else ';'} allowed: {', '.join(sorted(allowed)) or 'nothing'}"
    return text
