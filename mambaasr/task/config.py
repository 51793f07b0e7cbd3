"""Check a training command and its config before anything heavy is imported."""

import argparse
import copy
import difflib
import re
from pathlib import Path

import yaml

from mambaasr.errors import UserError
from mambaasr.task import criteria, signatures

# YAML 1.1 reads 1e-3 as a string, as it wants a dot in a number with an exponent.
_NUMBER_READ_AS_TEXT = re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
_NOTHING = ("none", "null", "nil")
# ESPnet's str2bool.
_TRUE = ("y", "yes", "t", "true", "on", "1")
_FALSE = ("n", "no", "f", "false", "off", "0")
_TYPES = {"int": int, "float": (int, float), "bool": bool, "str": str}


class _Loader(yaml.SafeLoader):
    """Plain values only; a value that its type cannot hold is a yaml error with its line."""

    def construct_object(self, node, deep=False):
        try:
            return super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problem = f"`{node.value}` is no {node.tag.rpartition(':')[2]} ({error})"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


class Config(dict):
    """A config file's values, and the lines that they stand on.

    Attributes:
        path: the file, as the user named it.
        lines: (top-level key,) or (top-level key, key below it) -> line number from 1.
        texts: the same keys -> a single value as it is written: 4.00.
    """

    def __init__(self, path, values=(), lines=()):
        super().__init__(values)
        self.path = path
        self.lines = dict(lines)
        self.texts = {}

    def where(self, *keys):
        """Return ``file: line N`` of a key."""
        line = self.lines.get(keys)
        return f"{self.path}: line {line}" if line else str(self.path)


def read(path):
    """Read a config file.

    Args:
        path: a yaml file that holds a mapping.

    Returns:
        Config: its values and their lines.

    Raises:
        UserError: the file is missing or unreadable, is no mapping, names a key twice, or
            writes a number in a way that yaml takes for text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such config file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    root, values = _load(text, path)
    if root is None:
        return Config(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: a config is a list of `option: value` lines")
    config = Config(path, values)
    _walk(config, root, ())
    return config


def read_conf(option, text):
    """Read what a command line gives to a ``*_conf`` option, in one of ESPnet's forms.

    Args:
        option: the option's name.
        text: ``key=value``, ``key.sub=value`` or ``{key: value, ...}``; values are yaml.

    Returns:
        tuple: the list of keys down to the value, and the value; no keys for a whole mapping.

    Raises:
        UserError: the text is no such form, or yaml takes a number or ``None`` for text.
    """
    source = f"--{option} {text}"
    key, equals, value = text.partition("=")
    keys = [] if text.lstrip().startswith("{") or not equals else key.split(".")
    if keys and not value.strip():
        return keys, value
    root, value = _load(value if keys else text, source)
    if not keys and not isinstance(value, dict):
        raise UserError(f"{source}: write key=value")
    _walk(Config(source), root, (option,))
    return keys, value


def _load(text, source):
    """Return yaml's tree of nodes, and the values that it stands for."""
    try:
        return yaml.compose(text, Loader=_Loader), yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"{_at(source, mark)}: not valid yaml: {problem}") from error
    except RecursionError:
        raise UserError(f"{source}: not valid yaml: nested too deeply") from None


def _at(source, mark):
    """Name a place in a file, or a command line's option, which is one line."""
    return (
        f"{source}: line {mark.line + 1}" if mark and not str(source).startswith("--") else source
    )


def _walk(config, node, keys, above=()):
    """Note the line of every key, and refuse what yaml would read without complaint."""
    where = _at(config.path, node.start_mark)
    if node in above:
        raise UserError(f"{where}: `{keys[0]}` holds itself; write it without the alias")
    above = (*above, node)
    if isinstance(node, yaml.ScalarNode):
        config.texts[keys] = node.value
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*keys, str(key.value))
            if below in config.lines:
                raise UserError(
                    f"{_at(config.path, key.start_mark)}: `{key.value}` is given "
                    f"twice; the first is on line {config.lines[below]}"
                )
            config.lines[below] = key.start_mark.line + 1
            _walk(config, value, below, above)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(config, value, (*keys, index), above)
    elif node.style is None and node.tag.endswith(":str") and _numeric(keys):
        written = node.value
        if _NUMBER_READ_AS_TEXT.fullmatch(written):
            written = re.sub("[eE]", ".0e", written)
        elif written == "None" and keys[0].endswith("_conf"):
            written = "null"
        if written != node.value:
            raise UserError(f"{where}: yaml reads {node.value} as text; write {written}")


def _numeric(keys):
    """Say whether a number may stand at some keys; a list of tokens holds texts like 1e5."""
    if not keys or str(keys[0]).endswith("_conf"):
        return True
    known = (signatures.options(task).get(keys[0]) for task in signatures.TASKS)
    option = next(filter(None, known), None)
    if option is None:  # another command's config, such as one for decoding
        return not any(isinstance(key, int) for key in keys)
    return (option.type or "").startswith(("int", "float"))


def check_command(argv, task="asr", whole=True):
    """Check a command line of one of ESPnet's tasks and the config that it names.

    Options must exist, chosen classes must be known, and the keys of every ``*_conf`` must fit
    the chosen class's constructor. Only sources are read; nothing of ESPnet is imported.

    Args:
        argv: the command's arguments, without the program's name.
        task: "asr" or "lm".
        whole: whether config and arguments are all of a training: then their options must fit
            each other too. A block alone may lack what another gives.

    Returns:
        dict: option -> list of values, as the command line gives them (unparsed).

    Raises:
        UserError: names the file and line, or the command line, and what is allowed.
    """
    given = _parse(argv, task)
    path = (given.get("config") or [None])[-1]
    config = read(path) if path is not None else Config("command line")
    options = signatures.options(task)
    for key in config:
        if key not in options:
            raise UserError(
                f"{config.where(key)}: there is no option `{key}`{_nearest(key, options)}"
            )
        _check_value(config, key, options[key])
    collecting = collects_statistics(given, config)
    for slot, choice in signatures.slots(task).items():
        name = _chosen(slot, choice, given, config)
        # Statistics come before what is made of them: stage 10 drops a normalisation by file.
        partial = collecting and slot == "normalize"
        _check_class(task, slot, name, given, config, partial)
    for fixed in signatures.FIXED[task]:
        _check_class(task, fixed, fixed, given, config, partial=True)
    if whole and task == "asr":
        criteria.check(
            overlay(given, config),
            lambda option: f"--{option}" if option in given else config.where(option),
        )
    return given


def overlay(given, config):
    """Return the options that decide which epochs are the best, the command line's over a config's.

    Args:
        given: what :func:`check_command` returns.
        config: dict of a config's values.

    Returns:
        dict: see :func:`mambaasr.task.criteria.check`.
    """
    found = {name: config[name] for name in criteria.OPTIONS if name in config}
    for name in criteria.OPTIONS:
        if name in given:
            several = name == "best_model_criterion"
            found[name] = given[name] if several else (given[name] or [None])[-1]
    texts = given.get("model_conf", ())
    found["model_conf"] = lay_over(config.get("model_conf"), "model_conf", texts)
    return found


def collects_statistics(given, config=None):
    """Say whether a checked command collects statistics, rather than trains.

    Args:
        given: what :func:`check_command` returns.
        config: the command's config, if it is read already.
    """
    if config is None:
        path = (given.get("config") or [None])[-1]
        config = {} if path is None else read(path)
    value = (given.get("collect_stats") or [config.get("collect_stats")])[-1]
    return str(value).lower() in _TRUE


def _parse(argv, task):
    """Split a command line into option -> values without knowing ESPnet's types."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in signatures.options(task):
        parser.add_argument(f"--{name}", action="append", nargs="*", default=argparse.SUPPRESS)
    known, unknown = parser.parse_known_args(argv)
    for word in unknown:
        name = word.partition("=")[0]
        if name.startswith("--"):
            near = _nearest(name[2:].replace("-", "_"), signatures.options(task), "--")
            raise UserError(
                f"there is no option {name}{near}; see mambaasr {task}_train --help_all"
            )
        raise UserError(f"what does `{word}` belong to? Options look like --name value")
    return {
        name: [value for values in groups for value in values]
        for name, groups in vars(known).items()
    }


def _chosen(slot, choice, given, config):
    """Return the class name chosen in a slot, or None; it must be known."""
    if slot in given:
        name, where = (given[slot] or [""])[-1].lower(), f"--{slot}"
    elif slot in config:
        name, where = config[slot], config.where(slot)
    else:
        return choice.default
    if name is None or str(name).lower() in _NOTHING:
        return None
    if not isinstance(name, str) or name not in choice.classes:
        raise UserError(f"{where}: {slot} `{name}` is unknown{_nearest(name, choice.classes)}")
    return name


def _check_class(task, slot, name, given, config, partial):
    """Check the arguments of one chosen class: known, of the right kind, none missing."""
    option = f"{slot}_conf"
    values = [(key, value, f"--{option}") for key, value in given_conf(option, given)]
    written = config.get(option)
    if written is not None and not isinstance(written, dict):
        raise UserError(
            f"{config.where(option)}: {option} holds `key: value` lines, found {written!r}"
        )
    for key, value in (written or {}).items():
        values.append((key, value, config.where(option, str(key))))
    if name is None:
        return
    allowed = signatures.class_options(slot, name, task)
    for key, value, where in values:
        parameter = allowed.parameters.get(key)
        if parameter is None and not allowed.open:
            raise UserError(
                f"{where}: {option} has no option `{key}`{_nearest(key, allowed.parameters)}"
                + (f" ({slot}: {name})" if slot != name else "")
            )
        kind = _TYPES.get(parameter.type) if parameter else None
        if kind and value is not None:
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise UserError(
                    f"{where}: {option}: `{key}` must be {parameter.type}, found {value!r}"
                )
    if partial or allowed.open:
        return
    have = {key for key, _, _ in values}
    for key, parameter in allowed.parameters.items():
        if parameter.required and key not in have:
            raise UserError(f"{config.where(slot)}: {slot} `{name}` needs {option}: `{key}`")


def lay_over(conf, option, texts):
    """Return a ``*_conf`` mapping with what a command line gives to the option over it.

    Args:
        conf: a mapping, which is not changed, or None.
        option: the option's name.
        texts: its values on the command line, see :func:`read_conf`.
    """
    conf = copy.deepcopy(dict(conf)) if isinstance(conf, dict) else {}
    for text in texts:
        keys, value = read_conf(option, text)
        if not keys:
            conf.update(value)
            continue
        below = conf
        for key in keys[:-1]:
            if not isinstance(below.get(key), dict):
                below[key] = {}
            below = below[key]
        below[keys[-1]] = value
    return conf


def given_conf(option, given):
    """Yield the top-level keys and values that the command line gives to a ``*_conf`` option.

    A value inside a nested mapping (``key.sub=value``) counts as None.
    """
    for text in given.get(option, ()):
        keys, value = read_conf(option, text)
        if not keys:
            yield from value.items()
        else:
            yield keys[0], value if len(keys) == 1 else None


def _check_value(config, key, option):
    """Check a top-level value against the option's plain type and choices."""
    value = config[key]
    if value is None or option.several:
        return
    kind = (option.type or "").partition("_or_none")[0]
    if kind in ("int", "float"):
        try:
            good = not isinstance(value, bool) and float(value) == {"int": int}.get(kind, float)(
                value
            )
        except (TypeError, ValueError):
            good = kind != option.type and str(value).lower() in _NOTHING
        if not good:
            raise UserError(f"{config.where(key)}: `{key}` must be {kind}, found {value!r}")
    elif kind == "str2bool" and not isinstance(value, bool):
        if str(value).lower() not in _TRUE + _FALSE:
            raise UserError(f"{config.where(key)}: `{key}` is true or false, found {value!r}")
    elif option.choices and value not in option.choices:
        allowed = [choice for choice in option.choices if choice is not None]
        raise UserError(
            f"{config.where(key)}: `{key}` cannot be {value!r}{_nearest(str(value), allowed)}"
        )


def _nearest(name, allowed, prefix=""):
    """Say what was probably meant, and what is allowed unless that is a very long list."""
    allowed = [str(item) for item in allowed]
    near = difflib.get_close_matches(str(name), allowed, 1, 0.6)
    text = f"; did you mean `{prefix}{near[0]}`?" if near else ""
    if len(allowed) <= 60:
        text += f"{'' if near else ';'} allowed: {', '.join(sorted(allowed)) or 'nothing'}"
    return text
