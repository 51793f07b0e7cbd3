"""Training configs: a base and small blocks that are laid over it."""

import math
import re
from pathlib import Path

import yaml

from mambaasr.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe yaml in which ``1e-3`` is a number and a key given twice an error."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice", key_node.start_mark
                )
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


# Yaml 1.1 asks for a point and a signed exponent, and reads 1e-3, as Python writes it, as text.
_Loader.yaml_implicit_resolvers = {
    first: list(resolvers) for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def load_config(path):
    """Read a yaml file of keys and values.

    Raises:
        UserError: no such file, no UTF-8, bad yaml (with its line), a key twice, not a mapping.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # a SafeLoader
    except FileNotFoundError as error:
        there = sorted(str(one) for one in path.parent.glob("*.yaml"))
        hint = f"; there are: {', '.join(there)}" if there else ""
        raise UserError(f"{path}: no such config{hint}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}: save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise UserError(f"{path}{line}: not valid yaml: {problem}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"{path}:1: expected lines of 'key: value'")
    return content


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
