"""Read yaml configs and ``*_conf`` options, remembering where each value was written."""

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from mambaasr.errors import UserError

# YAML 1.1 wants a dot and a sign in a number with an exponent: 1e-3 and 1.0e6 are text to it.
_READ_AS_TEXT = re.compile(r"([-+]?[0-9][0-9_]*)(\.[0-9_]*)?[eE]([-+]?[0-9]+)|None")


class Config(dict[str, Any]):
    """A config's values, and where each was written.

    Attributes:
        path: the file, as the user named it; or an option of the command line, ``--encoder_conf``.
        places: keys down to a value -> where it was written: "a.yaml: line 3", "--encoder_conf".
        texts: keys down to a single value of the file -> how it is written: 4.00.
    """

    def __init__(self, path: str | Path, values: Mapping[str, Any] | None = None) -> None:
        super().__init__(values or {})
        self.path = path
        self.places: dict[tuple, str] = {}
        self.texts: dict[tuple, str] = {}

    def copy(self) -> Self:
        """Return a copy that shares no mapping with this config."""
        return copy.deepcopy(self)

    def where(self, *keys: str | int) -> str:
        """Return where a value was written, or the nearest mapping around it; else the file."""
        while keys and keys not in self.places:
            keys = keys[:-1]
        return self.places[keys] if keys else str(self.path)

    def put(self, keys: tuple, value: Any, places: Mapping[tuple, str]) -> None:
        """Set the value below some keys, making mappings on the way.

        Args:
            keys: down to the value.
            value: the new one.
            places: where it and what is below it were written; of other keys they are left out.
        """
        below = self
        for key in keys[:-1]:
            if not isinstance(below.get(key), dict):
                below[key] = {}
            below = below[key]
        below[keys[-1]] = value
        depth = len(keys)
        kept = {each: at for each, at in self.places.items() if each[:depth] != keys}
        self.places = kept | {each: at for each, at in places.items() if each[:depth] == keys}

    def lay_over(self, option: str, text: str) -> None:
        """Put what a command line gives to a ``*_conf`` option into its mapping.

        Args:
            option: the option's name.
            text: ``key=value``, ``key.sub=value`` or ``{key: value, ...}``; values are yaml.

        Raises:
            UserError: the text is no such form, or yaml takes a number or ``None`` for text.
        """
        source = Config(f"--{option}")
        key, equals, value = text.partition("=")
        if equals and not text.lstrip().startswith("{"):
            keys = (option, *key.split("."))
            source.places[keys] = source.path
            self.put(keys, _load(value, source, keys) if value.strip() else value, source.places)
            return
        found = _load(text, source, (option,))
        if not isinstance(found, dict):
            raise UserError(f"{source.path} {text}: write key=value")
        for key, value in found.items():
            self.put((option, key), value, source.places)


def read(path: str | Path) -> Config:
    """Read a config file.

    Args:
        path: a yaml file that holds a mapping.

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
    config = Config(path)
    values = _load(text, config, ())
    if values is not None and not isinstance(values, dict):
        raise UserError(f"{path}: a config is a list of `option: value` lines")
    config.update(values or {})
    return config


def _load(text, config, keys):
    """Return the value of a yaml text that stands below some keys; note its places in a config."""
    loader, mark = yaml.SafeLoader(text), None
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        # First, for `<<` adds its keys to the mapping when that is built.
        _walk(config, root, keys)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark, problem = error.problem_mark, error.problem
    except RecursionError:
        problem = "nested too deeply, or in itself"
    # A special character, or a value that its type cannot hold: 2024-13-45.
    except (yaml.YAMLError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        problem = " ".join(str(error).split())
    raise UserError(f"{_at(config, mark)}: not valid yaml: {problem}")


def _at(config, mark):
    """Name a place in a file, or a command line's option, which is one line."""
    line = mark is not None and not str(config.path).startswith("--")
    return f"{config.path}: line {mark.line + 1}" if line else str(config.path)


def _walk(config, node, keys):
    """Note the place of every key, and refuse what yaml would read without complaint."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below, place = (*keys, str(key.value)), _at(config, key.start_mark)
            if below in config.places:
                first = config.places[below].rpartition(": ")[2]
                raise UserError(f"{place}: `{key.value}` is given twice; the first is on {first}")
            config.places[below] = place
            _walk(config, value, below)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(config, value, (*keys, index))
    else:
        config.texts[keys] = node.value
        found = _READ_AS_TEXT.fullmatch(node.value)
        in_conf = bool(keys) and str(keys[0]).endswith("_conf")
        if found and in_conf and not node.style and node.tag.endswith(":str"):
            written = f"{found[1]}{found[2] or '.0'}e{int(found[3]):+}" if found[1] else "null"
            place = _at(config, node.start_mark)
            raise UserError(f"{place}: yaml reads {node.value} as text; write {written}")


def sampling_rate(frontend_conf: Mapping[str, Any] | None) -> int:
    """Return the sampling rate that a front end's options say or mean [Hz]."""
    from humanfriendly import parse_size  # ESPnet may write 16k

    value = (frontend_conf or {}).get("fs") or 16000
    return parse_size(value) if isinstance(value, str) else int(value)
