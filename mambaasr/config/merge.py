"""Lay small blocks over a base config."""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from mambaasr.config.read import Config
from mambaasr.errors import UserError


def merge(base: Config, blocks: Iterable[Config]) -> Config:
    """Lay blocks over a base config: a block's top-level keys replace the base's.

    A block that names a class (``encoder: mamba``) without its options takes the old class's
    options (``encoder_conf``) away, for they belong to the old class.

    Raises:
        UserError: two blocks give one key different values.
    """
    merged = base.copy()
    origin: dict[str, str | Path] = {}
    for block in blocks:
        for key, value in block.items():
            if key in origin and merged[key] != value:
                raise UserError(f"{block.path} and {origin[key]} both set {key!r}: keep it in one")
            conf = f"{key}_conf"
            if conf in merged and not (conf in block or conf in origin or value == merged.get(key)):
                del merged[conf]
            merged.put((key,), value, block.places)
            origin[key] = block.path
    return merged


def dump(config: Mapping[str, Any]) -> str:
    """Return a config as yaml text that reads back equal."""
    return yaml.dump(
        dict(config), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=math.inf
    )


def differences(one: str, other: str, most: int = 4) -> list[str]:
    """Name the options in which two yaml texts of configs differ, with both values.

    Args:
        one, other: the texts; [] where one of them is no config.
        most: so many are named.
    """
    try:
        flat = [_flat(_one_form(yaml.safe_load(text))) for text in (one, other)]
    except (yaml.YAMLError, AttributeError):
        return []
    before, now = flat
    found = [
        f"{key}: {before.get(key, 'not given')}, now {now.get(key, 'not given')}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key, ...) != now.get(key, ...)
    ]
    return found[:most] + ([f"{len(found) - most} more"] if len(found) > most else [])


def _flat(config, above=""):
    found = {}
    for key, value in config.items():
        inside = isinstance(value, dict) and value
        found |= _flat(value, f"{above}{key}.") if inside else {f"{above}{key}": value}
    return found


def same_config(one: str, other: str) -> bool:
    """Whether two yaml texts are one config, whichever form gives the options of mixers.

    Blocks of before wrote them beside ``mixer_conf``: such a text is no other training.
    """
    try:
        return one == other or _one_form(yaml.safe_load(one)) == _one_form(yaml.safe_load(other))
    except (yaml.YAMLError, AttributeError):  # no yaml, or no mapping
        return False


def _one_form(config):
    """Return a config with what stands in every ``mixer_conf`` beside it, as old yamls have it."""
    found = {}
    for key, conf in config.items():
        found[key] = conf
        if key.endswith("_conf") and isinstance(conf, dict):
            found[key] = {name: value for name, value in conf.items() if name != "mixer_conf"}
            for name, value in (conf.get("mixer_conf") or {}).items():
                found[key]["mixer_dropout_rate" if name == "dropout_rate" else name] = value
    return found
