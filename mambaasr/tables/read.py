"""Read a table from its yaml, and check all that can be known before a run.

docs/tables.md says what a table's file holds.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from mambaasr.config import Config, read
from mambaasr.errors import UserError
from mambaasr.recipe.options import (
    OPTIONS,
    check_text,
    find_yaml,
    near_words,
    parse_given,
    text_of,
)
from mambaasr.recipe.task import options as words_by_option
from mambaasr.tables.table import (
    ARGUMENTS,
    PARAMETERS,
    RATES,
    Column,
    Published,
    Row,
    Table,
    combine,
)

# Of a whole training, and of no test set.
OF_TRAINING = (PARAMETERS, "training hours", "epoch minutes")
METRICS = (*RATES, "RTF", *OF_TRAINING)
_COLUMN = re.compile(rf"(?:(\S+) )??({'|'.join(METRICS)})(?: ?, ?(.+))?")
_TOP = "title paper source columns decodings options scale rows note".split()
_PAPER = "arxiv title table url note".split()
_ROW = "key label options seeds published source note".split()


def run_options(recipe: Path) -> dict[str, str]:
    """Return every option with the value that a recipe's run.sh gives it; UserError if it fails."""
    script = recipe / "run.sh"
    if not script.is_file():
        raise UserError(f"{script}: no such file; name the recipe's folder (--recipe DIR)")
    command = [str(script.resolve()), "--print_options", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"{script} --print_options true: {done.stderr.strip()}")
    found = {name: text_of(value) for name, value in json.loads(done.stdout).items()}
    for name, option in OPTIONS.items():
        if option.kind == "yaml" and found.get(name):
            found[name] = find_yaml(name, found[name], recipe=recipe)
    return found


def read_table(
    path: str | Path,
    recipe: str | Path | None = None,
    scale: str | None = None,
    given: Mapping[str, str] | None = None,
) -> Table:
    """Read a table and check everything that can be known before a run.

    Args:
        path: the yaml file.
        recipe: the recipe's folder; by default the one above the file's folder.
        scale: one of the table's scales; by default its first.
        given: options of run.sh from the command line, which win: name -> text.

    Raises:
        UserError: names file, line and key, and what is allowed.
    """
    content, given = read(Path(path)), dict(given or {})
    recipe = Path(os.path.relpath(recipe or Path(os.path.abspath(path)).parent.parent))
    for name in {"asr_tag", "asr_exp", "inference_tag"} & given.keys():
        raise UserError(f"--{name}: the table names its experiments itself")
    return _Reader(content, recipe, given).table(scale)


class _Reader:
    """Turns a file's plain values into a :class:`Table`, each mistake named with its line."""

    def __init__(self, content: Config, recipe: Path, given: dict[str, str]) -> None:
        self.content, self.recipe, self.given = content, recipe, given
        self.defaults = run_options(recipe)

    def fail(self, keys: tuple, message: str) -> NoReturn:
        """Raise an error at the line of the innermost of ``keys`` that has one."""
        raise UserError(f"{self.content.where(*keys)}: {message}")

    def check_name(self, keys: tuple, what: str, name: Any, known: Iterable[Any]) -> None:
        known = [str(each) for each in known]
        if name not in known:
            near = near_words(str(name), known)
            self.fail(keys, f"{what} `{name}`{near}; there are: {', '.join(known) or 'none'}")

    def mapping(self, value: Any, keys: tuple, allowed: Iterable[str] | None = None) -> dict:
        """Return a mapping (None: an empty one) whose keys are all allowed."""
        if not isinstance(value, (dict, type(None))):
            name = "the row" if keys[0] == "rows" and len(keys) == 2 else f"`{keys[-1]}`"
            self.fail(keys, f"{name} holds `key: value` lines, found {value!r}")
        for key in value or {}:
            if allowed is not None:
                self.check_name((*keys, str(key)), "unknown key", key, allowed)
        return value or {}

    def sequence(self, key: str, what: str) -> list:
        found = self.content.get(key)
        if not isinstance(found, list) or not found:
            self.fail((key,), f"`{key}` is a list {what}")
        return found

    def text(self, mapping: dict, key: str, keys: tuple = (), needed: bool = False) -> str:
        """Return a text (or number) of a mapping as text."""
        value = mapping.get(key)
        if isinstance(value, (dict, list, bool)) or (needed and value in (None, "")):
            self.fail((*keys, key), f"`{key}` must be a text, found {value!r}")
        return "" if value is None else str(value)

    def table(self, wanted: str | None) -> Table:
        top = self.mapping(dict(self.content), (), _TOP)
        title = self.text(top, "title", needed=True)
        scale, needs, scaled = self.scaled(wanted)
        decodings = {
            name: self.options(("decodings", name), conf, decoding_only=True)
            for name, conf in self.mapping(top.get("decodings"), ("decodings",)).items()
        }
        options = combine(self.options(("options",), top.get("options")), scaled)
        rows = [
            self.mapping(conf, ("rows", index), _ROW)
            for index, conf in enumerate(self.sequence("rows", "of systems, each with a `key`"))
        ]
        sets = (self.given.get("test_sets") or (self.defaults | options)["test_sets"]).split()
        # A table of published figures alone may name sets that the recipe has not.
        runs = any("options" in conf for conf in rows)
        columns: dict[str, Column] = {}
        for text in self.sequence("columns", "such as [test WER, test CER]"):
            column = self.column(str(text), sets if runs else None, decodings)
            if columns.setdefault(column.name, column) is not column:
                self.fail(("columns",), f"column `{text}` is given twice")
        if PARAMETERS not in [column.metric for column in columns.values()]:
            columns = {PARAMETERS: Column(PARAMETERS, PARAMETERS)} | columns
        table = Table(
            path=Path(self.content.path),
            recipe=self.recipe,
            title=title,
            columns=list(columns.values()),
            rows=[self.row(("rows", index), conf, columns) for index, conf in enumerate(rows)],
            paper=self.mapping(top.get("paper"), ("paper",), _PAPER),
            note=self.text(top, "note"),
            scale=scale,
            needs=needs,
            options=options,
            decodings=decodings,
            given=self.given,
            defaults=self.defaults,
        )
        self.check_runs(table)
        return table

    def column(self, text: str, sets: list[str] | None, decodings: Iterable[str]) -> Column:
        column = f"column `{text}`"
        match = _COLUMN.fullmatch(" ".join(text.split()))
        of, metric, decoding = match.groups() if match else (None, "", None)
        # The RTF may be of a set, or of all.
        if not match or (of is None and metric in RATES) or (of and metric in OF_TRAINING):
            self.fail(
                ("columns",),
                f"{column}: write `SET METRIC` or `SET METRIC, DECODING`; metrics: "
                f"{', '.join(METRICS)}; without a set {', '.join(OF_TRAINING)}, and RTF of all",
            )
        if of and sets is not None:
            self.check_name(("columns",), f"{column}: there is no test set", of, sets)
        if decoding:
            self.check_name(("columns",), f"{column}: there is no decoding", decoding, decodings)
        return Column(match[0], metric, of, decoding)

    def scaled(self, wanted: str | None) -> tuple[str | None, str, dict[str, str]]:
        """Return the chosen scale's name, what it needs and its options."""
        found: dict[str | None, tuple[str | None, str, dict[str, str]]] = {}
        for name, conf in self.mapping(self.content.get("scale"), ("scale",)).items():
            at = ("scale", name)
            conf = self.mapping(conf, at, ("needs", "options"))
            options = self.options((*at, "options"), conf.get("options"))
            found[name] = (name, self.text(conf, "needs", at, needed=True), options)
        if wanted is not None:
            self.check_name((), "there is no scale", wanted, found)
        return found[wanted or next(iter(found))] if found else (None, "", {})

    def options(self, keys: tuple, written: Any, decoding_only: bool = False) -> dict[str, str]:
        """Check options of run.sh; return them as texts, names of blocks as paths of files."""
        decide = ("decoding",) if decoding_only else ("model", "decoding", "none")
        allowed = [name for name, option in OPTIONS.items() if option.decides in decide]
        found = {}
        for name, value in self.mapping(written, keys, allowed).items():
            at = (*keys, name)
            if isinstance(value, (dict, list)) or value is None:
                self.fail(at, f"`{name}` is one value, as for --{name}, found {value!r}")
            found[name] = text = str(text_of(value))
            try:
                parse_given([f"--{name}={text}"])
                if OPTIONS[name].kind == "yaml":
                    found[name] = find_yaml(name, text, recipe=self.recipe)
                elif OPTIONS[name].kind == "words":
                    check_text(OPTIONS[name], text)
            except UserError as error:
                self.fail(at, str(error))
            if name in ARGUMENTS and "--seed" in words_by_option(shlex.split(text)):
                self.fail(at, f"--{name} '{text}': write `seeds: [1]` in the row")
        return found

    def row(self, at: tuple, conf: dict, columns: Iterable[str]) -> Row:
        key = self.text(conf, "key", at, needed=True)
        if not re.fullmatch(r"[A-Za-z0-9_.+-]+", key):
            self.fail((*at, "key"), f"row `{key}`: letters, digits and _ . + - only")
        options = self.options((*at, "options"), conf["options"]) if "options" in conf else None
        seeds = conf.get("seeds", [None])
        whole = isinstance(seeds, list) and all(type(each) is int and each >= 0 for each in seeds)
        if "seeds" in conf and not (whole and seeds and len(set(seeds)) == len(seeds)):
            self.fail((*at, "seeds"), f"`seeds` is a list such as [1, 2, 3], found {seeds!r}")
        published = self.published(conf, (*at, "published"), columns)
        label, note = self.text(conf, "label", at) or key, self.text(conf, "note", at)
        return Row(key, label, options, tuple(seeds), published, note)

    def published(self, conf: dict, at: tuple, names: Iterable[str]) -> dict[str, Published]:
        written, found = self.mapping(conf.get("published"), at, names), {}
        for name, cell in written.items():
            keys = (*at, name)
            cell = cell if isinstance(cell, dict) else {"value": cell}
            value: Any = self.mapping(cell, keys, ("value", "source")).get("value")
            if value == "unknown":
                found[name] = Published()
                continue
            if type(value) not in (int, float) or not 0 <= value < float("inf"):
                self.fail(keys, f"`{name}` must be a number from 0 or unknown, found {value!r}")
            source = cell.get("source") or conf.get("source") or self.content.get("source")
            if not isinstance(source, str):
                self.fail(keys, f"`{name}`: {value} has no source; write `source:` and a text")
            texts = self.content.texts
            text = texts.get((*keys, "value")) or texts.get(keys, str(value))
            found[name] = Published(value, source, text)
        missing = [name for name in names if name not in (*written, PARAMETERS)]
        if written and missing:
            self.fail(at, f"published lacks `{missing[0]}`: write a number or unknown")
        return found

    def check_runs(self, table: Table) -> None:
        """Read every row's blocks now, so that a table of many hours does not fail at its end."""
        made: dict[Any, Row] = {}
        for index, row in enumerate(table.rows):
            at, name = ("rows", index, "key"), f"row `{row.key}`"
            if made.setdefault(row.key, row) is not row:
                self.fail(at, f"{name} is given twice")
            try:
                for run in table.runs(row):
                    other = made.setdefault((run.exp, run.inference_tag), row)
                    if other is not row:
                        raise UserError(
                            f"the same experiment as row `{other.key}` ({run.exp}): give them "
                            "different options, or blocks of different names"
                        )
            except UserError as error:
                self.fail(at, f"{name}: {error}")
