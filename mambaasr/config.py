"""Training configs: a base and small blocks that are laid over it."""

import math

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


def select(config, keys):
    """Return the part of a config under the given keys; ``encoder_conf.input_layer`` goes inside.

    Keys that the config does not have are left out.
    """
    missing = object()
    part = {}
    for key in keys:
        value = config
        for name in key.split("."):
            value = value.get(name, missing) if isinstance(value, dict) else missing
        if value is not missing:
            part[key] = value
    return part


def dump(config):
    """Write a config as yaml text that reads back equal."""
    return yaml.dump(
        config, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=math.inf
    )
