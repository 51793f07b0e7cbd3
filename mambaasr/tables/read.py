"""Read a table from its yaml, and check all that can be known before a run.

docs/tables.md says what a table's file holds.
"""

import functools
import hashlib
import json
import math
import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mambaasr.config import read
from mambaasr.errors import UserError
from mambaasr.recipe.names import SHORT
from mambaasr.recipe.options import (
    BLOCKS,
    OPTIONS,
    check_text,
    find_yaml,
    near_words,
    option_words,
    parse,
    parse_given,
    text_of,
)
from mambaasr.tables.table import (
    LID,
    PARAMETERS,
    RATES,
    Column,
    Published,
    Row,
    Run,
    Table,
)

# Options that are words of another command line.
ARGUMENTS = ("asr_args", "inference_args", "lm_args")
# Of a whole training, and of no test set.
OF_TRAINING = (PARAMETERS, "training hours", "epoch minutes")
OF_SET = (*RATES, LID, "RTF")
# The RTF may be of a set, or of all.
_COLUMN = re.compile(
    rf"(?:(\S+) (?:({'|'.join(OF_SET)})|(WER|CER|TER) of (\S+?))"
    rf"|({'|'.join(('RTF', *OF_TRAINING))}))(?: ?, ?(.+))?"
)

# What a table holds. A form is {key: form of its value}, where * is any key, [form of each], or
# the types that a value may have.
_TEXT = (str, int, float, type(None))
_VALUE = (str, int, float, bool)
_OPTIONS = {name: _VALUE for name, option in OPTIONS.items() if option.decides != "run"}
_DECODING = {name: _VALUE for name in _OPTIONS if OPTIONS[name].decides == "decoding"}
_ROW = {"key": _TEXT, "label": _TEXT, "options": _OPTIONS, "seeds": [(int,)]}
_ROW |= {"published": {"*": (*_TEXT, dict)}, "source": _TEXT, "note": _TEXT}
_FORM = {
    "title": _TEXT,
    "paper": dict.fromkeys("arxiv title table url note".split(), _TEXT),
    "source": _TEXT,
    "columns": [_TEXT],
    "decodings": {"*": _DECODING},
    "options": _OPTIONS,
    "scale": {"*": {"needs": _TEXT, "options": _OPTIONS}},
    "rows": [_ROW],
    "note": _TEXT,
}
_REQUIRED = ("title", "columns", "rows", "key", "needs")


def _trains(row: Mapping[str, Any]) -> bool:
    """Whether a row is trained here; one that only quotes a paper has neither of these."""
    return "options" in row or "seeds" in row


def run_options(recipe: Path) -> dict[str, str]:
    """Return every option with the value that a recipe's run.sh gives it; UserError if it fails."""
    script = recipe / "run.sh"
    if not script.is_file():
        raise UserError(f"{script}: no such file; name the recipe's folder (--recipe DIR)")
    done = _print_options(script.resolve())
    if done.returncode != 0:
        raise UserError(f"{script} --print_options true: {done.stderr.strip()}")
    found = {name: text_of(value) for name, value in json.loads(done.stdout).items()}
    for name, option in OPTIONS.items():
        if option.kind == "yaml" and found.get(name):
            found[name] = find_yaml(name, found[name], recipe=recipe)
    return found


@functools.cache  # one process may read many tables of a recipe
def _print_options(script: Path) -> subprocess.CompletedProcess[str]:
    command = [str(script), "--print_options", "true"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def combine(*layers: Mapping[str, str]) -> dict[str, str]:
    """Lay options of run.sh over each other: the last wins, but arguments are concatenated."""
    whole: dict[str, str] = {}
    for layer in layers:
        for name, value in layer.items():
            if name in ARGUMENTS and whole.get(name):
                value = f"{whole[name]} {value}".strip()
            whole[name] = value
    return whole


def read_table(
    path: str | Path,
    recipe: str | Path | None = None,
    scale: str | None = None,
    given: Mapping[str, str] | None = None,
    keys: Collection[str] | None = None,
) -> Table:
    """Read a table and check everything that can be known before a run.

    Args:
        path: the yaml file.
        recipe: the recipe's folder; by default the one above the file's folder.
        scale: one of the table's scales; by default its first.
        given: options of run.sh from the command line, which win: name -> text.
        keys: of the rows to keep; by default all.

    Raises:
        UserError: names file, line and key, and what is allowed.
    """
    recipe = Path(os.path.relpath(recipe or Path(os.path.abspath(path)).parent.parent))
    for name in {"asr_tag", "asr_exp", "inference_tag"} & (given or {}).keys():
        raise UserError(f"--{name}: the table names its experiments itself")
    return _Reader(Path(path), recipe, given or {}, scale).table(keys)


class _Reader:
    """Turns a file's plain values into a :class:`Table`, each mistake named with its line."""

    def __init__(
        self, path: Path, recipe: Path, given: Mapping[str, str], scale: str | None
    ) -> None:
        self.content, self.recipe, self.given = read(path), recipe, dict(given)
        self.check(self.content, _FORM)
        self.defaults = run_options(recipe)
        scales = self.content.get("scale") or {}
        scaled = {
            name: self.options(conf, "scale", name, "options") for name, conf in scales.items()
        }
        if scale is not None:
            self.check_name((), "there is no scale", scale, scales)
        self.scale = scale or next(iter(scales), None)
        self.base = combine(self.options(self.content, "options"), scaled.get(self.scale, {}))
        decodings = self.content.get("decodings") or {}
        named = {name: self.options(decodings, "decodings", name) for name in decodings}
        self.columns = self.read_columns(named)
        wanted = dict.fromkeys(each.decoding for each in self.columns.values() if each.decodes)
        self.decodings = {name: named.get(name, {}) for name in wanted or [None]}

    def fail(self, keys: tuple, message: str) -> NoReturn:
        """Raise an error at the line of the innermost of ``keys`` that has one."""
        raise UserError(f"{self.content.where(*keys)}: {message}")

    def check(self, value: Any, form: Any, keys: tuple = ()) -> None:
        """Check that a value, and all that is in it, has its form; an empty mapping may be None."""
        if isinstance(form, tuple):
            kind = "a text or number" if str in form else "a whole number"
            right = type(value) in form
        else:
            kind = "a list" if isinstance(form, list) else "`key: value` lines"
            value = {} if value is None and isinstance(form, dict) else value
            right = isinstance(value, type(form)) and value != []
        if not right:
            name = f"each of `{keys[-2]}`" if isinstance(keys[-1], int) else f"`{keys[-1]}`"
            self.fail(keys, f"{name} must be {kind}, found {value!r}")
        if isinstance(form, list):
            for index, each in enumerate(value):
                self.check(each, form[0], (*keys, index))
        elif isinstance(form, dict):
            for key, each in value.items():
                if "*" not in form:
                    self.check_name((*keys, str(key)), "unknown key", key, form)
                self.check(each, form.get(key, form.get("*")), (*keys, str(key)))
            for key in form:
                if key in _REQUIRED and value.get(key) in (None, ""):
                    self.fail(keys, f"`{key}` is missing")

    def check_name(self, keys: tuple, what: str, name: Any, known: Iterable[Any]) -> None:
        known = [str(each) for each in known]
        if name not in known:
            near = near_words(str(name), known)
            self.fail(keys, f"{what} `{name}`{near}; there are: {', '.join(known) or 'none'}")

    def options(self, conf: Mapping[str, Any] | None, *keys: Any) -> dict[str, str]:
        """Return options of run.sh, the last of ``keys``, as texts, blocks as paths of files."""
        found = {}
        for name, value in ((conf or {}).get(keys[-1]) or {}).items():
            found[name] = text = str(text_of(value))
            try:
                parse_given([f"--{name}={text}"])
                if OPTIONS[name].kind == "yaml":
                    found[name] = find_yaml(name, text, recipe=self.recipe)
                elif OPTIONS[name].kind != "file":  # which is seen from the recipe's folder
                    check_text(OPTIONS[name], re.sub("k$", "000", text) if name == "fs" else text)
                if name in ARGUMENTS and re.search(r"--seed\b", text):
                    raise UserError(f"--{name} '{text}': write `seeds: [1]` in the row")
            except UserError as error:
                self.fail((*keys, name), str(error))
        return found

    def read_columns(self, decodings: Iterable[str]) -> dict[str, Column]:
        sets = (self.defaults | self.base | self.given)["test_sets"].split()
        # A table of published figures alone may name sets that the recipe has not.
        runs = any(map(_trains, self.content["rows"]))
        found: dict[str, Column] = {}
        for text in self.content["columns"]:
            at, column = ("columns",), f"column `{text}`"
            match = _COLUMN.fullmatch(" ".join(str(text).split()))
            if not match:
                self.fail(
                    at,
                    f"{column}: write `SET METRIC` or `SET METRIC, DECODING`; metrics: "
                    f"{', '.join(OF_SET)}, and `CER of LANGUAGE`; "
                    f"without a set {', '.join(OF_TRAINING)}, and RTF of all",
                )
            of, metric, rate, language, alone, decoding = match.groups()
            if of and runs:
                self.check_name(at, f"{column}: there is no test set", of, sets)
            if decoding:
                self.check_name(at, f"{column}: there is no decoding", decoding, decodings)
            metric = metric or rate or alone
            found[match[0]] = Column(match[0], metric, of, decoding, language)
        if PARAMETERS not in [column.metric for column in found.values()]:
            found = {PARAMETERS: Column(PARAMETERS, PARAMETERS)} | found
        return found

    def table(self, keys: Collection[str] | None) -> Table:
        rows = [self.row(index, conf) for index, conf in enumerate(self.content["rows"])]
        made: dict[str, str] = {}
        for index, row in enumerate(rows):
            experiments = [f"experiment {run.exp}/{run.inference_tag}" for run in row.runs]
            for what in [f"key `{row.key}`", *experiments]:
                if what in made:
                    self.fail(
                        ("rows", index, "key"),
                        f"row `{row.key}` has the same {what} as row `{made[what]}`: give it "
                        "another key, other options or blocks of other names",
                    )
                made[what] = row.key
        for key in keys or ():
            self.check_name((), "there is no row", key, [row.key for row in rows])
        rows = [row for row in rows if keys is None or row.key in keys]
        return Table(self.recipe, self.content, self.scale, list(self.columns.values()), rows)

    def row(self, index: int, conf: Mapping[str, Any]) -> Row:
        key, at = str(conf["key"]), ("rows", index)
        if not re.fullmatch(r"[A-Za-z0-9_.+-]+", key):
            self.fail((*at, "key"), f"row `{key}`: letters, digits and _ . + - only")
        if any(seed < 0 for seed in conf.get("seeds", ())):
            self.fail((*at, "seeds"), "a seed is a whole number from 0")
        options = combine(self.base, self.options(conf, *at, "options"))
        seeds = conf.get("seeds", [None])
        runs = [
            self.run(combine(options, how, self.given), seed, decoding)
            for seed in seeds
            for decoding, how in self.decodings.items()
            if _trains(conf)
        ]
        published = self.published((*at, "published"), conf)
        label, note = str(conf.get("label") or key), str(conf.get("note") or "")
        return Row(key, label, seeds, runs, published, note)

    def run(self, options: dict[str, str], seed: int | None, decoding: str | None) -> Run:
        """Name the experiment and the decoding that options of run.sh make."""
        if seed is not None:
            options = combine(options, {"asr_args": f"--seed {seed}"})
        values, _ = parse(option_words(self.defaults | options))
        tag = self.name("model", values.asr_config, options)
        inference_tag = self.name("decoding", values.inference_config or "decode", options)
        for name, option in OPTIONS.items():
            if option.kind == "yaml" and values[name]:
                path = find_yaml(name, values[name], recipe=self.recipe)
                values[name] = str(self.recipe / path)
        options |= {"asr_tag": tag, "inference_tag": inference_tag}
        exp = self.recipe / values.expdir / f"asr_{tag}"
        return Run(seed, decoding, exp, inference_tag, options, values)

    def name(self, decides: str, config: str, options: Mapping[str, str]) -> str:
        """Name an experiment or a decoding by its config and the options that decide it."""
        parts = [Path(config).stem]
        for name in sorted(options, key=lambda name: (name in ARGUMENTS, name not in BLOCKS, name)):
            value, decided = options[name], OPTIONS[name].decides == decides
            if (
                not decided
                or value == self.defaults[name]
                or name in ("asr_config", "inference_config")
            ):
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

    def published(self, at: tuple, conf: Mapping[str, Any]) -> dict[str, Published]:
        written, texts = conf.get("published") or {}, self.content.texts
        found = dict.fromkeys(self.columns if written else (), Published())
        for name, cell in written.items():
            keys = (*at, name)
            self.check_name(keys, "unknown key", name, self.columns)
            cell = cell if isinstance(cell, dict) else {"value": cell}
            self.check(cell, {"value": _TEXT, "source": _TEXT}, keys)
            value = cell.get("value")
            if value == "unknown":
                continue
            if not (isinstance(value, int | float) and 0 <= value < math.inf):
                self.fail(keys, f"`{name}` must be a number from 0 or unknown, found {value!r}")
            source = cell.get("source") or conf.get("source") or self.content.get("source")
            if not source:
                self.fail(keys, f"`{name}`: {value} has no source; write `source:` and a text")
            text = texts.get((*keys, "value")) or texts.get(keys, str(value))
            found[name] = Published(value, str(source), text)
        for name in found:
            if name not in (*written, PARAMETERS):
                self.fail(at, f"published lacks `{name}`: write a number or unknown")
        return found
