"""The files that a trained model needs lie beside its ``config.yaml`` and are named relative to it.

So an experiment opens wherever its folder is moved or copied.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mambaasr.files import atomic_write

# What ESPnet opens when it builds a model or its tokenizer: keys down to each path.
_FILES = (("normalize_conf", "stats_file"), ("bpemodel",), ("non_linguistic_symbols",))


def keep_beside(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Copy the files that a config names into an experiment's folder.

    Args:
        config: of a training; not changed.
        folder: of ``config.yaml``.

    Returns:
        The config with these files named relative to the folder.
    """
    kept = dict(config)
    for conf, key, path in _named(config):
        if not path.is_file():  # a name that a library knows
            continue
        target = folder / path.name
        if not (target.exists() and target.samefile(path)):
            with path.open("rb") as source, atomic_write(target, "wb") as stream:
                shutil.copyfileobj(source, stream)
        if conf is None:
            kept[key] = path.name
        else:
            kept[conf] = {**kept[conf], key: path.name}
    return kept


def resolve(config: dict[str, Any], folder: str | Path) -> None:
    """Give a config's files, in place, the paths by which they open from any folder.

    Configs of before name them by absolute paths; where the recipe was renamed since, these are
    looked for at the same place as seen from the experiment.

    Args:
        config: of a trained model.
        folder: of ``config.yaml``.
    """
    folder = Path(os.path.abspath(folder))
    for conf, key, path in _named(config):
        found = folder / path
        if path.is_absolute() and not path.exists() and config.get("output_dir"):
            found = folder / os.path.relpath(path, config["output_dir"])
        name = os.path.normpath(found)
        if os.path.exists(name):
            holder = config if conf is None else config[conf]
            holder[key] = name


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str | None, str, Path]]:
    """Yield (``*_conf`` or None, key, path) of the files that a config names."""
    for *above, key in _FILES:
        conf = above[0] if above else None
        holder = config if conf is None else config.get(conf)
        value = holder.get(key) if isinstance(holder, Mapping) else None
        if isinstance(value, (str, Path)) and str(value):
            yield conf, key, Path(value)
