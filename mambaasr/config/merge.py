"""Lay small blocks over a base config."""

import math
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from mambaasr.config.read import Config
from mambaasr.errors import UserError

# Options of mixers as they stand beside ``mixer_conf`` -> inside; MixerConf.flat, without torch.
FLAT = {name: name for name in "mixer direction merge d_state d_conv expand".split()}
FLAT["mixer_dropout_rate"] = "dropout_rate"


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
                merged.remove(conf)
            merged.put((key,), value, block.where(key))
            merged.places |= {keys: at for keys, at in block.places.items() if keys[0] == key}
            origin[key] = block.path
    return merged


def relevant(
    config: Mapping[str, Any],
    drop: Iterable[str],
    keep: Collection[str] = (),
    drop_unless_0: Collection[str] = (),
) -> dict[str, Any]:
    """Return what of a config a result depends on, by flat names (``encoder_conf.num_blocks``).

    Args:
        config: of a training.
        drop: patterns of flat names that do not matter, such as ``optim*``.
        keep: flat names that matter although a pattern fits.
        drop_unless_0: flat names of numbers that matter only where they are 0.
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if key.endswith("_conf") and isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return {
        key: value
        for key, value in flat.items()
        if (key in keep or not any(fnmatchcase(key, pattern) for pattern in drop))
        and (key not in drop_unless_0 or value == 0)
    }


def dump(config: Mapping[str, Any]) -> str:
    """Return a config as yaml text that reads back equal."""
    return yaml.dump(
        dict(config), Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=math.inf
    )


def same_config(one: str, other: str) -> bool:
    """Whether two yaml texts are one config, whichever form gives the options of mixers.

    Blocks of before wrote them beside ``mixer_conf``: such a text is no other training.
    """
    if one == other:
        return True
    try:
        first, second = yaml.safe_load(one), yaml.safe_load(other)
    except yaml.YAMLError:
        return False
    both = isinstance(first, dict) and isinstance(second, dict)
    return both and _one_form(first) == _one_form(second)


def _one_form(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with every option of a mixer inside ``mixer_conf``."""
    found = dict(config)
    for key, value in config.items():
        if key.endswith("_conf") and isinstance(value, dict):
            inner = dict(value)
            inside = dict(inner.pop("mixer_conf", None) or {})
            for name in FLAT.keys() & inner.keys():
                inside[FLAT[name]] = inner.pop(name)
            found[key] = inner | ({"mixer_conf": inside} if inside else {})
    return found
