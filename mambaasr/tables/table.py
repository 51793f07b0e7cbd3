"""What a table holds, and a row's runs of run.sh: their options, names and folders."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mambaasr.config import Config, merge, read
from mambaasr.recipe.names import SHORT
from mambaasr.recipe.options import BLOCKS, OPTIONS, Options

# A macro rate is the mean of the languages' rates.
RATES = ("macro WER", "macro CER", "macro TER", "WER", "CER", "TER")
PARAMETERS = "parameters"
# Options that are words of another command line.
ARGUMENTS = ("asr_args", "inference_args", "lm_args")


class Column(NamedTuple):
    """A test set (None: all of them, or none needed), a metric, and a decoding's name or None."""

    name: str
    metric: str
    set: str | None = None
    decoding: str | None = None

    @property
    def decodes(self) -> bool:
        """Whether it wants more than a training."""
        return self.metric in (*RATES, "RTF")


class Published(NamedTuple):
    """A published figure, or None where it is unknown; its source; as the table writes it."""

    value: float | None = None
    source: str | None = None
    text: str = "unknown"


@dataclass(frozen=True)
class Run:
    """One training with one decoding.

    Attributes:
        options: what run.sh is called with.
        values: every option with its value, yaml files as seen from the current folder.
    """

    seed: int | None
    decoding: str | None
    exp: Path
    inference_tag: str
    options: dict[str, str]
    values: Options

    @property
    def config(self) -> Config:
        """The training's config with its blocks laid over it."""
        paths = [self.values[name] for name in ("asr_config", *BLOCKS) if self.values[name]]
        return merge(read(paths[0]), map(read, paths[1:]))


@dataclass(frozen=True)
class Row:
    """A system: its run for each seed and each decoding, and by column what a paper says of it.

    Without runs it is published only.
    """

    key: str
    label: str
    seeds: list[int | None]
    runs: list[Run]
    published: dict[str, Published]
    note: str


@dataclass(frozen=True)
class Table:
    """A table as :func:`mambaasr.tables.read.read_table` reads it.

    Attributes:
        content: what the file holds beside columns and rows, as it stands there.
        scale: name of the chosen one, or None where the table has none.
    """

    recipe: Path
    content: Config
    scale: str | None
    columns: list[Column]
    rows: list[Row]


def name_of(
    decides: str, config: str, options: Mapping[str, str], defaults: Mapping[str, str]
) -> str:
    """Name an experiment ("model") or a "decoding" by its config and the options that decide it."""
    parts = [Path(config).stem]
    for name in sorted(options, key=lambda name: (name in ARGUMENTS, name not in BLOCKS, name)):
        value, decided = options[name], OPTIONS[name].decides == decides
        if not decided or value == defaults[name] or name in ("asr_config", "inference_config"):
            continue
        if name in ARGUMENTS and value:
            parts.append(value.replace(" ", "").replace("--", "_").lstrip("_"))
        else:
            file = value.endswith((".yaml", ".pth"))
            what = Path(value).stem if file else value.replace(" ", "-") or "none"
            parts.append(f"{SHORT.get(name, name)}_{what}")
    name = re.sub(r"[^A-Za-z0-9_.+-]", "", "_".join(parts))
    if len(name) > 150:
        name = f"{name[:130]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def combine(*layers: Mapping[str, str]) -> dict[str, str]:
    """Lay options of run.sh over each other: the last wins, but arguments are concatenated."""
    whole: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items():
            if name in ARGUMENTS and whole.get(name):
                value = f"{whole[name]} {value}".strip()
            whole[name] = value
    return whole


def option_words(options: Mapping[str, str]) -> list[str]:
    """Return options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]
