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
