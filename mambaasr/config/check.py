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
_TRUTH = dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True)
_TRUTH |= dict.fromkeys(("n", "no", "f", "false", "off", "0"), False)

# ESPnet takes smaller ones, and fails or trains nothing, hours later.
_LEAST = dict.fromkeys(
    "max_epoch accum_grad batch_size batch_bins valid_batch_size valid_batch_bins "
    "num_iters_per_epoch keep_nbest_models log_interval fold_length".split(),
    1,
) | dict.fromkeys(("num_workers", "seed", "ngpu", "patience"), 0)


def check_training(config: Config, words: Sequence[str] = (), task: str = "asr") -> Config:
    """Check a merged config and further options as a training would.

    A normalisation that the statistics give need not be there yet.

    Args:
        config: see :func:`mambaasr.config.merge`; not changed.
        words: of the training's command line, over the config.
        task: "asr" or "lm".

    Returns:
        the config with the words laid over it; their single values stay texts.

    Raises:
        UserError: names file and line, or the option of the command line, and what is allowed.
    """
    whole = _lay_over(config, _parse(words, task))
    _check(whole, task, collecting=True)
    return whole


def check_command(argv: Sequence[str], task: str = "asr") -> Config:
    """Check a program's arguments and the config they name, as :func:`check_training` does."""
    given = _parse(argv, task)
    path = given.pop("config", None)
    whole = _lay_over(Config("command line") if path is None else read(path), given)
    _check(whole, task, is_true(whole.get("collect_stats")))
    return whole


def is_true(value: object) -> bool:
    """Say whether a switch is on: a config's value, or one of ESPnet's texts for it."""
    return _TRUTH.get(str(value).lower(), False)


def _parse(words, task):
    """Split a command line into option -> text, or texts, without knowing their types."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options = schema(task)["options"]
    for name, option in options.items():
        how = {"action": "extend", "nargs": "*"} if option.get("several") else {"nargs": "?"}
        parser.add_argument(f"--{name}", default=argparse.SUPPRESS, **how)
    known, unknown = parser.parse_known_args(words)
    for word in unknown:
        if not word.startswith("--"):
            raise UserError(f"what does `{word}` belong to? Options look like --name value")
        name = word.partition("=")[0]
        near = _nearest(name[2:].replace("-", "_"), options, "--")
        raise UserError(f"there is no option {name}{near}; see mambaasr {task}_train --help_all")
    return vars(known)


def _lay_over(config, given):
    """Return a copy of a config with a command line's options over it."""
    whole = config.copy()
    for name, value in given.items():
        if not name.endswith("_conf"):
            whole.put((name,), value, {(name,): f"--{name}"})
        for text in value if name.endswith("_conf") else ():
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
        found, conf = choice["classes"][name.lower()], config.get(option)
        if conf is not None:
            check_options(config, found, (option,), f" ({slot}: {name})" if slot != name else "")
        # Statistics come before what is made of them: a normalisation lacks its file.
        for key in {} if collecting and slot == "normalize" else found:
            if found[key].get("required") and key not in (conf or {}):
                raise UserError(f"{config.where(slot)}: {slot} `{name}` needs {option}: `{key}`")
    if task == "asr":
        check_criteria(config)


def check_options(
    config: Config, options: Mapping[str, Any], keys: tuple[str, ...] = (), chosen: str = ""
) -> None:
    """Check the options of a config, or of a mapping in it, and those in the mappings below.

    Args:
        config: what is not inside a mapping may be text, as ESPnet's parser reads it.
        options: those that it may have; see :func:`mambaasr.config.schema.schema` for the form.
        keys: down to the mapping.
        chosen: for messages, of which class the options are.

    Raises:
        UserError: names file and line, or the option of the command line, and what is allowed.
    """
    conf: Any = config
    for key in keys:
        conf = conf[key]
    owner = ".".join(keys)
    if not isinstance(conf, Mapping):
        raise UserError(f"{config.where(*keys)}: {owner} holds `key: value` lines, found {conf!r}")
    for key, written in conf.items():
        where, inside = f"{config.where(*keys, str(key))}: ", f"{owner}: " if keys else ""
        if key not in options and "**" not in options:
            has = f"{owner} has" if keys else "there is"
            raise UserError(f"{where}{has} no option `{key}`{_nearest(key, options)}{chosen}")
        option = options.get(key, {})
        if "below" in option and written is not None:
            check_options(config, option["below"], (*keys, key), chosen)
        listed = option.get("several") and isinstance(written, list)
        for one in written if listed else [written]:
            problem = _problem(key, one if keys else _typed(one, option), one, option)
            if problem:
                raise UserError(f"{where}{inside}{problem}{chosen}")


def _problem(key, value, written, option):
    """Say what is wrong with an option's value; an empty text where nothing is."""
    if value is None:
        return ""
    kinds, kind = option.get("kinds", ()), type(value).__name__
    if kinds and kind not in kinds and not (kind == "int" and "float" in kinds):
        allowed = " or ".join(kinds).replace("bool", "true or false")
        return f"`{key}` must be {allowed}, found {written!r}"
    if value not in option.get("choices", [value]):
        return f"{key} `{written}` is unknown{_nearest(value, option['choices'])}"
    if isinstance(value, (int, float)) and value < option.get("least", value):
        return f"`{key}` must be at least {option['least']}, found {written}"
    return ""


def describe_option(action: argparse.Action) -> dict[str, Any]:
    """Return what an option of a command line accepts; the form is a schema's."""
    several = action.nargs is not None or "Append" in type(action).__name__
    found: dict[str, Any] = {"several": True} if several else {}
    if action.dest.endswith("_conf"):
        return {"several": True}
    if action.choices:
        return found | {"choices": list(action.choices)}
    kinds = getattr(action.type, "__name__", "").replace("str2bool", "bool").split("_or_")
    found |= {"kinds": kinds} if kinds[0] in ("int", "float", "bool") else {}
    return found | ({"least": _LEAST[action.dest]} if action.dest in _LEAST else {})


def _typed(value, option):
    """Return a value as ESPnet's parser reads its text, or as it is where that cannot be read."""
    if isinstance(value, float) and value.is_integer():  # 1.0e+6
        value = int(value)
    text, kinds = str(value).lower(), option.get("kinds", [""])
    named = {str(each).lower(): each for each in option.get("choices", ())}
    if "none" in (*kinds, *named):
        named |= dict.fromkeys(NOTHING)
    if kinds[0] == "bool":
        named |= _TRUTH
    try:
        return named[text] if text in named else {"int": int, "float": float}[kinds[0]](text)
    except (LookupError, ValueError):
        return value


def _nearest(name, allowed, prefix=""):
    """Say what was probably meant, and what is allowed unless that is a very long list."""
    allowed = sorted(filter(None, allowed))
    near = difflib.get_close_matches(str(name), allowed, 1, 0.6)
    text = f"; did you mean `{prefix}{near[0]}`?" if near else ""
    if len(allowed) <= 60:
        text += f"{'' if near else ';'} allowed: {', '.join(allowed) or 'nothing'}"
    return text
