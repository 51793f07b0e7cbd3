"""What a table holds, and its rows as runs of run.sh: their options, names and folders."""

import difflib
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mambaasr.config import merge
from mambaasr.errors import UserError
from mambaasr.recipe.options import BLOCKS, OPTIONS
from mambaasr.task.config import read

# A macro rate is the mean of the languages' rates.
RATES = ("macro WER", "macro CER", "macro TER", "WER", "CER", "TER")
PARAMETERS = "parameters"
# Options that are words of another command line.
ARGUMENTS = ("asr_args", "inference_args", "lm_args")
_SHORT = {"encoder": "enc", "decoder": "dec", "optim": "opt"}


@dataclass(frozen=True)
class Column:
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
    """A system: the options that make it (None: published only), and what a paper says of it.

    ``published`` maps a column's name to its figure.
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

    row: str
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

    @property
    def sets(self) -> list[str]:
        """The test sets that the columns name, in their order."""
        return list(dict.fromkeys(column.set for column in self.columns if column.set))

    @property
    def decodes(self) -> bool:
        """Whether a column wants more than a training."""
        return any(column.decodes for column in self.columns)

    def runs(self, row: Row) -> list[Run]:
        """Return the run of each seed and each decoding of a row; [] where it has no options."""
        if row.options is None:
            return []
        decodings = dict.fromkeys(each.decoding for each in self.columns if each.decodes)
        return [self._run(row, seed, name) for seed in row.seeds for name in decodings or [None]]

    def _run(self, row: Row, seed: int | None, decoding: str | None) -> Run:
        how = self.decodings.get(decoding, {})
        seeded = {} if seed is None else {"asr_args": f"--seed {seed}"}
        options = combine(self.options, row.options, how, self.given, seeded)
        whole = self.defaults | options
        tag = _name(whole["asr_config"], "model", options, self.defaults)
        inference_tag = _name(
            whole["inference_config"] or "decode", "decoding", options, self.defaults
        )
        options |= {"asr_tag": tag, "inference_tag": inference_tag}
        exp = self.recipe / whole["expdir"] / f"asr_{tag}"
        return Run(row.key, seed, decoding, exp, inference_tag, options, self.config(whole))

    def config(self, options: Mapping[str, str]) -> dict[str, Any]:
        """Return the training config that options of run.sh make, without ``asr_args``."""
        paths = [options[name] for name in ("asr_config", *BLOCKS) if options[name]]
        parts = [(path, read(self.recipe / path)) for path in paths]
        return merge(parts[0][1], parts[1:]) if parts else {}

    def select(self, keys: Iterable[str]) -> None:
        """Keep the rows of some keys only, in the table's order.

        Raises:
            UserError: there is no such row.
        """
        keys, known = list(keys), [row.key for row in self.rows]
        if not keys:
            raise UserError(f"--rows names no row; {self.path} has {', '.join(known)}")
        for key in keys:
            if key not in known:
                raise UserError(f"{self.path}: there is no row {key!r}{choices(key, known)}")
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


def _name(
    config: str, decides: str, options: Mapping[str, str], defaults: Mapping[str, str]
) -> str:
    """Name an experiment or a decoding by its config and by the options that decide it."""
    parts = [Path(config).stem] if config else []
    for name in sorted(options, key=lambda name: (name in ARGUMENTS, name not in BLOCKS, name)):
        value = options[name]
        if OPTIONS[name].decides != decides or value == defaults[name]:
            continue
        if name in ("asr_config", "inference_config"):
            continue
        if name in ARGUMENTS and value:
            parts.append(re.sub(r"^_+", "", value.replace(" ", "").replace("--", "_")))
        else:
            file = value.endswith((".yaml", ".pth"))
            what = Path(value).stem if file else value.replace(" ", "-") or "none"
            parts.append(f"{_SHORT.get(name, name)}_{what}")
    name = re.sub(r"[^A-Za-z0-9_.+-]", "", "_".join(parts))
    if len(name) > 150:
        name = f"{name[:130]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def choices(name: str, allowed: Iterable[str]) -> str:
    """Say which name was probably meant, and which are allowed."""
    allowed = list(map(str, allowed))
    near = difflib.get_close_matches(str(name), allowed, 1)
    text = f"; did you mean `{near[0]}`?" if near else ";"
    return f"{text} allowed: {', '.join(allowed) or 'nothing'}"
