"""What a table holds, and its rows as runs of run.sh: their options, names and folders."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mambaasr.config import merge, read
from mambaasr.errors import UserError
from mambaasr.recipe.names import SHORT
from mambaasr.recipe.options import BLOCKS, OPTIONS

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


@dataclass
class Row:
    """A system: the options that make it, and by column what a paper says of it.

    Without options (None) it is published only.
    """

    key: str
    label: str
    options: dict[str, str] | None = None
    seeds: tuple[int | None, ...] = (None,)
    published: dict[str, Published] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One training with one decoding: its folders and the options of run.sh that make it."""

    seed: int | None
    decoding: str | None
    exp: Path
    inference_tag: str
    options: dict[str, str]
    config: dict[str, Any]


@dataclass
class Table:
    """A table as :func:`mambaasr.tables.read.read_table` reads it.

    Attributes:
        options: of run.sh, for every row; ``decodings``: those of each named decoding.
        given: options from the command line, which win.
        defaults: every option with the value that the recipe's run.sh gives it.
    """

    path: Path
    recipe: Path
    title: str
    columns: list[Column]
    rows: list[Row]
    paper: dict[str, Any]
    note: str
    scale: str | None
    needs: str
    options: dict[str, str]
    decodings: dict[str, dict[str, str]]
    given: dict[str, str]
    defaults: dict[str, str]

    def runs(self, row: Row) -> list[Run]:
        """Return the run of each seed and each decoding of a row; [] where it has no options."""
        if row.options is None:
            return []
        decodings = dict.fromkeys(each.decoding for each in self.columns if each.decodes)
        return [self._run(row, seed, name) for seed in row.seeds for name in decodings or [None]]

    def _run(self, row: Row, seed: int | None, decoding: str | None) -> Run:
        how = self.decodings.get(decoding or "", {})
        seeded = {} if seed is None else {"asr_args": f"--seed {seed}"}
        options = combine(self.options, row.options or {}, how, self.given, seeded)
        whole = self.defaults | options
        tag = self._name("model", whole["asr_config"], options)
        inference_tag = self._name("decoding", whole["inference_config"] or "decode", options)
        options |= {"asr_tag": tag, "inference_tag": inference_tag}
        exp = self.recipe / whole["expdir"] / f"asr_{tag}"
        paths = [whole[name] for name in ("asr_config", *BLOCKS) if whole[name]]
        parts = [read(self.recipe / path) for path in paths]
        config = merge(parts[0], parts[1:]) if parts else {}
        return Run(seed, decoding, exp, inference_tag, options, config)

    def _name(self, decides: str, config: str, options: Mapping[str, str]) -> str:
        """Name an experiment or a decoding by its config and the options that decide it."""
        parts = [Path(config).stem] if config else []
        for name in sorted(options, key=lambda name: (name in ARGUMENTS, name not in BLOCKS, name)):
            value = options[name]
            given = OPTIONS[name].decides == decides and value != self.defaults[name]
            if not given or name in ("asr_config", "inference_config"):
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

    def select(self, keys: Iterable[str]) -> None:
        """Keep the rows of some keys only, in the table's order.

        Raises:
            UserError: there is no such row.
        """
        keys, known = set(keys), [row.key for row in self.rows]
        if not keys or keys - set(known):
            what = f"no row {', '.join(sorted(keys - set(known)))}" if keys else "--rows is empty"
            raise UserError(f"{self.path}: {what}; there are: {', '.join(known)}")
        self.rows = [row for row in self.rows if row.key in keys]


def combine(*layers: Mapping[str, str]) -> dict[str, str]:
    """Lay options of run.sh over each other: the last wins, but arguments are concatenated."""
    whole: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items():
            if name in ARGUMENTS and whole.get(name):
                value = f"{whole[name]} {value}".strip()
            whole[name] = value
    return whole
