"""What a table holds: columns, rows, and the runs of run.sh that a row stands for."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mambaasr.config import Config, merge, read
from mambaasr.recipe.options import BLOCKS, Options

# A macro rate is the mean of the languages' rates.
RATES = ("normalized WER", "macro WER", "macro CER", "macro TER", "WER", "CER", "TER")
# The part of the utterances whose language was found, in percent.
LID = "LID accuracy"
PARAMETERS = "parameters"


class Column(NamedTuple):
    """A test set (None: all of them, or none needed), a metric, and a decoding's name or None.

    A rate may be that of one language of the set alone.
    """

    name: str
    metric: str
    set: str | None = None
    decoding: str | None = None
    language: str | None = None

    @property
    def decodes(self) -> bool:
        """Whether it wants more than a training."""
        return self.metric in (*RATES, LID, "RTF")


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
