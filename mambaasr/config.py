"""Training configs: a base and small blocks that are laid over it."""

import math
from fnmatch import fnmatchcase

import yaml

from mambaasr.errors import UserError


def merge(base, blocks):
    """Lay blocks over a base config: a block's top-level keys replace the base's.

    A block that names a class (``encoder: mamba``) without its options takes the old class's
    options (``encoder_conf``) away, for they belong to the old class.

    Args:
        base: dict.
        blocks: list of ``(name, dict)``; the name is for messages.

    Raises:
        UserError: two blocks give one key different values.
    """
    merged, origin = dict(base), {}
    for name, block in blocks:
        for key, value in block.items():
            if key in origin and merged[key] != value:
                raise UserError(f"{name} and {origin[key]} both set {key!r}: keep it in one")
            if f"{key}_conf" in merged and f"{key}_conf" not in block and value != merged.get(key):
                if f"{key}_conf" not in origin:
                    del merged[f"{key}_conf"]
            merged[key], origin[key] = value, name
    return merged


def flatten(config):
    """Return the options inside each ``*_conf`` under names of their own: ``encoder_conf.x``."""
    flat = {}
    for key, value in config.items():
        if key.endswith("_conf") and isinstance(value, dict):
            flat |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            flat[key] = value
    return flat


def drop(flat, patterns, keep=()):
    """Return a flat config without the keys that fit a pattern (``optim*``), but for ``keep``."""
    return {
        key: value
        for key, value in flat.items()
        if key in keep or not any(fnmatchcase(key, pattern) for pattern in patterns)
    }


def dump(config):
    """Write a config as yaml text that reads back equal."""
    return yaml.dump(
        config, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
