"""The rows of a table as runs: which options make a system, and where its results lie.

See :mod:`mambaasr.score.table_file` for what a table says.
"""

import difflib
import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mambaasr.config import merge, read
from mambaasr.errors import UserError

# A macro rate is the mean of the languages' rates.
OF_A_SET = ("macro WER", "macro CER", "macro TER", "WER", "CER", "TER")
METRICS = (*OF_A_SET, "RTF", "parameters", "training hours", "epoch minutes")
PARAMETERS = "parameters"
UNKNOWN = "unknown"
BLOCKS = ("encoder", "decoder", "optim", "model")
ARGUMENTS = ("asr_args", "inference_args", "lm_args")
# They name the experiment, or say what to do rather than what to build.
NOT_IN_TABLES = (
    "stage stop_stage skip_data_prep skip_train skip_eval skip_stages force datadir dumpdir expdir "
    "asr_tag asr_exp asr_stats_dir inference_tag resume_changed"
).split()
# They change neither a model nor what it finds.
WITHOUT_EFFECT = {
    *NOT_IN_TABLES,
    *"ngpu nj inference_nj gpu_inference test_sets local_data_opts bad_audio".split(),
}


@dataclass(frozen=True)
class Column:
    """A test set (None: all of them, or none needed), a metric, and a decoding's name or None."""

    name: str
    metric: str
    set: str | None = None
    decoding: str | None = None


class Published(NamedTuple):
    """A published figure, or None where it is unknown; its source; as the table writes it."""

    value: float | None = None
    source: str | None = None
    text: str = UNKNOWN


@dataclass
class Row:
    """A system: the options that make it (None: published only), and what a paper says of it.

    ``published`` maps a column's name to a :class:`Published`.
    """

    key: str
    label: str
    options: dict | None = None
    seeds: tuple = (None,)
    published: dict = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Run:
    """One training with one decoding: where it lies and the options of run.sh that make it."""

    row: str
    seed: int | None
    decoding: str | None
    exp: Path
    inference_tag: str
    options: tuple
    config: dict

    @property
    def words(self):
        """The options as words of a command line."""
        return [word for name, value in self.options for word in (f"--{name}", value)]


@dataclass
class Table:
    """A table as :func:`read_table` reads it; ``given`` are options from the command line."""

    path: Path
    recipe: Path
    title: str
    columns: list
    rows: list
    paper: dict = field(default_factory=dict)
    note: str = ""
    scale: str | None = None
    needs: str = ""
    options: dict = field(default_factory=dict)
    decodings: dict = field(default_factory=dict)
    given: dict = field(default_factory=dict)
    defaults: dict = field(default_factory=dict)

    @property
    def sets(self):
        """The test sets that the columns name, in their order."""
        return list(dict.fromkeys(column.set for column in self.columns if column.set))

    @property
    def decodes(self):
        """Whether a column wants more than a training."""
        return any(column.metric in (*OF_A_SET, "RTF") for column in self.columns)

    @property
    def used_decodings(self):
        """The decodings that the columns name, in their order; None is the plain one."""
        named = [column.decoding for column in self.columns if column.metric in (*OF_A_SET, "RTF")]
        return list(dict.fromkeys(named)) or [None]

    def runs(self, row):
        """Return the :class:`Run` of each seed and decoding of a row."""
        return [
            self._run(row, seed, decoding) for seed in row.seeds for decoding in self.used_decodings
        ]

    def _run(self, row, seed, decoding):
        how = self.decodings.get(decoding, {})
        options = combine(self.options, row.options, how, self.given)
        if seed is not None:
            options = combine(options, {"asr_args": f"--seed {seed}"})
        whole = self.defaults | options
        training = {name: value for name, value in options.items() if not for_decoding(name)}
        tag = _name(_stem(whole["asr_config"]), training, self.defaults)
        decodes = {name: value for name, value in options.items() if for_decoding(name)}
        inference_tag = _name(_stem(whole["inference_config"]) or "decode", decodes, self.defaults)
        options |= {"asr_tag": tag, "inference_tag": inference_tag}
        exp = self.recipe / whole.get("expdir", "exp") / f"asr_{tag}"
        return Run(
            row.key, seed, decoding, exp, inference_tag, tuple(options.items()), self.config(whole)
        )

    def config(self, options):
        """Return the training config that options of run.sh make, without ``asr_args``."""
        parts = [(name, options.get(name)) for name in ("asr_config", *BLOCKS)]
        parts = [read(self.recipe / path) for _, path in parts if path]
        return merge(parts[0], parts[1:]) if parts else {}

    def select(self, keys):
        """Keep the rows of some keys only, in the table's order.

        Raises:
            UserError: there is no such row.
        """
        known = [row.key for row in self.rows]
        if not keys:
            raise UserError(f"--rows names no row; {self.path} has {', '.join(known)}")
        for key in keys:
            if key not in known:
                raise UserError(f"{self.path}: there is no row {key!r}{choices(key, known)}")
        self.rows = [row for row in self.rows if row.key in keys]


def combine(*layers):
    """Lay options of run.sh over each other: the last wins, but arguments go one behind another."""
    whole = {}
    for layer in layers:
        for name, value in (layer or {}).items():
            if name in ARGUMENTS and whole.get(name):
                value = f"{whole[name]} {value}".strip()
            whole[name] = value
    return whole


def for_decoding(name):
    return name.startswith(("inference_", "lm_", "use_lm", "ngram_", "use_ngram"))


def _stem(path):
    return Path(path or "").stem


def _name(head, options, defaults):
    """Name an experiment or a decoding by the options that decide it."""
    short = {"encoder": "enc", "decoder": "dec", "optim": "opt"}
    parts = [head] if head else []
    for name in sorted(options, key=lambda name: (name in ARGUMENTS, name not in BLOCKS, name)):
        value = options[name]
        if name in WITHOUT_EFFECT or value == defaults.get(name):
            continue
        if name in ("asr_config", "inference_config"):
            continue  # the head
        if value == "":
            parts.append(f"{short.get(name, name)}_none")
        elif name in ARGUMENTS:
            parts.append(re.sub(r"^_+", "", value.replace(" ", "").replace("--", "_")))
        else:
            what = _stem(value) if value.endswith((".yaml", ".pth")) else value.replace(" ", "-")
            parts.append(f"{short.get(name, name)}_{what}")
    name = re.sub(r"[^A-Za-z0-9_.+-]", "", "_".join(parts))
    if len(name) > 150:
        name = f"{name[:130]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
    return name


def choices(name, allowed):
    allowed = [str(each) for each in allowed]
    near = difflib.get_close_matches(str(name), allowed, 1)
    text = f"; did you mean `{near[0]}`?" if near else ""
    return f"{text}{'' if near else ';'} allowed: {', '.join(allowed) or 'nothing'}"
