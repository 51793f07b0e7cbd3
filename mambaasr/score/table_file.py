"""Tables of papers and of our own ablations: read from yaml and checked.

A table is a yaml file in a recipe's ``tables/``::

    title: Encoders on AN4                 # printed above
    paper: {arxiv: "2409.18654", table: 2, title: ...}       # left out for a table of our own
    source: "[notes]"                      # of every published figure that names no other
    columns: [test WER, test CER, "test WER, lm", RTF]       # set, metric, and how it is decoded
    decodings: {lm: {use_lm: true}}        # options of run.sh for the decodings that columns name
    options: {asr_args: --max_epoch 10}    # options of run.sh for every row
                                           # `encoder: conmamba_s` is conf/encoder/conmamba_s.yaml
                                           # of the recipe, else of TEMPLATE/asr1
    scale:                                 # the first one is taken unless --scale names another
      full: {needs: 4 GPUs of 80 GB, options: {ngpu: 4}}
    rows:
      - key: conformer                     # for --rows
        label: Conformer                   # printed
        options: {encoder: conf/encoder/conformer.yaml}      # without this key: not ours to run
        seeds: [1, 2, 3]                   # left out: the config's
        published: {test WER: 6.3, test CER: unknown, parameters: 34.23}
        source: Table XII
        note: what a reader should know

A published figure is a number, ``unknown``, or ``{value: 6.3, source: ...}``. Metrics are WER, CER
and TER [%] of a set, the means of its languages' rates (``macro WER``, ...), its RTF (or, without a
set, that of all sets of the table), ``parameters`` [millions], ``training hours`` and ``epoch
minutes``. Nothing measured is ever written into a table: it is read from the experiments that the
rows' options name.
"""

import os
import re
import shlex
import subprocess
from pathlib import Path

from mambaasr.config import read
from mambaasr.errors import UserError
from mambaasr.score.tables import (
    ARGUMENTS,
    BLOCKS,
    METRICS,
    NOT_IN_TABLES,
    OF_A_SET,
    PARAMETERS,
    UNKNOWN,
    Column,
    Published,
    Row,
    Table,
    choices,
    combine,
    for_decoding,
)

CONFIGS = ("asr_config", "encoder", "decoder", "optim", "model", "lm_config", "inference_config")
NAMES = ("asr_tag", "asr_exp", "inference_tag")
SWITCH = ("true", "false")
_TOP = "title paper source columns decodings options scale rows note".split()
_ROW = "key label options seeds published source note".split()
_PAPER = "arxiv title table url note".split()
_HELP_LINE = re.compile(r"^  --(\w+) .*\[(.*)\]$", re.MULTILINE)


def run_options(recipe):
    """Return the options of a recipe's run.sh as they stand there: name -> value.

    Raises:
        UserError: there is no run.sh, or it does not say.
    """
    script = Path(recipe, "run.sh")
    if not script.is_file():
        raise UserError(f"{script}: no such file; name the recipe's folder (--recipe DIR)")
    done = subprocess.run(
        [str(script.resolve()), "--help"], capture_output=True, text=True, check=False
    )
    found = dict(_HELP_LINE.findall(done.stdout))
    if done.returncode or "asr_config" not in found:
        raise UserError(f"{script} --help fails: {done.stderr.strip() or 'no options'}")
    return found


def read_table(path, recipe=None, scale=None, given=None):
    """Read a table and check everything that can be known before a run.

    Args:
        path: the yaml file.
        recipe: the recipe's folder; by default the one above the file's folder.
        scale: one of the table's scales; by default its first.
        given: options of run.sh from the command line, which win: name -> text.

    Raises:
        UserError: names file, line and key, and what is allowed.
    """
    path = Path(path)
    content = read(path)
    recipe = Path(recipe) if recipe is not None else Path(os.path.abspath(path)).parent.parent
    return _Reader(path, content, Path(os.path.relpath(recipe)), scale, dict(given or {})).table()


class _Reader:
    """Turns a file's plain values into a :class:`Table`, each mistake named with its line."""

    def __init__(self, path, content, recipe, scale, given):
        self.path, self.content, self.recipe, self.scale = path, content, recipe, scale
        self.defaults, self.given = run_options(recipe), given
        for name in given:
            if name in NAMES:
                raise UserError(f"--{name}: the table names its experiments itself")
            if name not in self.defaults:
                raise UserError(f"there is no option --{name}{choices(name, self.defaults)}")

    def fail(self, keys, message):
        """Raise an error at the line of the innermost of ``keys`` that has one."""
        while keys and keys not in self.content.places:
            keys = keys[:-1]
        raise UserError(f"{self.content.where(*keys)}: {message}")

    def mapping(self, value, keys, allowed):
        """Return a mapping (None: an empty one) whose keys are all allowed."""
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.fail(keys, f"{keys[-1]} holds `key: value` lines, found {value!r}")
        for key in value:
            if allowed is not None and key not in allowed:
                self.fail((*keys, str(key)), f"unknown key `{key}`{choices(key, allowed)}")
        return value

    def text(self, mapping, key, keys, needed=False):
        """Return a text (or number) of a mapping as text."""
        value = mapping.get(key)
        if value is None and not needed:
            return ""
        if isinstance(value, (dict, list, bool)) or value in (None, ""):
            self.fail((*keys, key), f"`{key}` must be a text, found {value!r}")
        return str(value)

    def table(self):
        top = self.content
        self.mapping(dict(top), (), _TOP)
        columns = self.columns()
        scale, needs, scaled = self.scaled()
        decodings = {
            name: self.options(("decodings", name), conf, decoding=True)
            for name, conf in self.mapping(top.get("decodings"), ("decodings",), None).items()
        }
        for index, column in enumerate(columns):
            if column.decoding is not None and column.decoding not in decodings:
                self.fail(
                    ("columns", index),
                    f"column `{column.name}`: there is no decoding `{column.decoding}`"
                    f"{choices(column.decoding, decodings)}",
                )
        options = combine(self.options(("options",), top.get("options")), scaled)
        sets = (self.given.get("test_sets") or (self.defaults | options)["test_sets"]).split()
        # A table of published figures alone may name sets that the recipe has not.
        written = self.content.get("rows")
        runs = isinstance(written, list) and any(
            isinstance(row, dict) and "options" in row for row in written
        )
        for column in columns if runs else ():
            if column.set is not None and column.set not in sets:
                self.fail(
                    ("columns",),
                    f"column `{column.name}`: there is no test set "
                    f"`{column.set}`{choices(column.set, sets)}",
                )
        table = Table(
            path=self.path,
            recipe=self.recipe,
            title=self.text(top, "title", (), needed=True),
            columns=columns,
            rows=self.rows(columns),
            paper=self.mapping(top.get("paper"), ("paper",), _PAPER),
            note=self.text(top, "note", ()),
            scale=scale,
            needs=needs,
            options=options,
            decodings=decodings,
            given=self.given,
            defaults=self.defaults,
        )
        self.check_configs(table)
        return table

    def columns(self):
        written = self.content.get("columns")
        if not isinstance(written, list) or not written:
            self.fail(("columns",), "`columns` is a list such as [test WER, test CER]")
        columns = [self.column(text) for text in written]
        names = [column.name for column in columns]
        for name in names:
            if names.count(name) > 1:
                self.fail(("columns",), f"column `{name}` is given twice")
        if PARAMETERS not in names:
            columns.insert(0, Column(PARAMETERS, PARAMETERS))
        return columns

    def column(self, text):
        what, _, decoding = str(text).partition(",")
        metric = next((each for each in METRICS if f" {what.strip()}".endswith(f" {each}")), None)
        name = what.strip().removesuffix(metric or "").strip()
        if metric is None or " " in name:
            self.fail(
                ("columns",),
                f"column `{text}`: write `SET METRIC` or `SET METRIC, DECODING`; metrics: "
                + ", ".join(METRICS),
            )
        if metric in OF_A_SET and not name:
            self.fail(("columns",), f"column `{text}`: {metric} of which test set?")
        if metric not in (*OF_A_SET, "RTF") and name:
            self.fail(("columns",), f"column `{text}`: {metric} is of no test set")
        return Column(" ".join(str(text).split()), metric, name or None, decoding.strip() or None)

    def scaled(self):
        """Return the chosen scale's name, what it needs and its options."""
        scales = self.mapping(self.content.get("scale"), ("scale",), None)
        if self.scale is not None and self.scale not in scales:
            raise UserError(
                f"{self.path}: there is no scale {self.scale!r}{choices(self.scale, scales)}"
            )
        found = {}
        for name, conf in scales.items():
            conf = self.mapping(conf, ("scale", name), ("needs", "options"))
            options = self.options(("scale", name, "options"), conf.get("options"))
            found[name] = (name, self.text(conf, "needs", ("scale", name), needed=True), options)
        chosen = self.scale or next(iter(found), None)
        return found[chosen] if chosen is not None else (None, "", {})

    def options(self, keys, written, decoding=False):
        """Check options of run.sh; return them as texts."""
        allowed = [name for name in self.defaults if name not in NOT_IN_TABLES]
        if decoding:
            allowed = [name for name in allowed if for_decoding(name)]
        found = {}
        for name, value in self.mapping(written, keys, allowed).items():
            if isinstance(value, (dict, list)) or value is None:
                self.fail((*keys, name), f"`{name}` is one value, as for --{name}, found {value!r}")
            text = str(value).lower() if isinstance(value, bool) else str(value)
            if self.defaults[name] in SWITCH and text not in SWITCH:
                self.fail((*keys, name), f"`{name}` is true or false, found {value!r}")
            found[name] = self.option((*keys, name), name, text)
        return found

    def option(self, keys, name, value):
        """Return an option's value, the name of a block as the path of its file."""
        if name in CONFIGS and value:
            folder = name if name in BLOCKS else ""
            conf = [Path(above, "conf", folder) for above in ("", "../../TEMPLATE/asr1")]
            files = [path / f"{value}.yaml" for path in conf] if "/" not in value else [Path(value)]
            file = next((file for file in files if (self.recipe / file).is_file()), None)
            if file is None:
                there = [path.stem for each in conf for path in (self.recipe / each).glob("*.yaml")]
                if "/" in value:
                    near = (self.recipe / value).parent.glob("*.yaml")
                    there = [os.path.relpath(path, self.recipe) for path in near]
                self.fail(
                    keys,
                    f"{name} `{value}`: no such block for {self.recipe}"
                    f"{choices(value, sorted(set(there)))}",
                )
            if name in BLOCKS and not {name, f"{name}_conf"} & read(self.recipe / file).keys():
                self.fail(
                    keys, f"{file}: has neither `{name}` nor `{name}_conf`, so it is no {name}"
                )
            return str(file)
        if name in ARGUMENTS:
            try:
                words = shlex.split(value)
            except ValueError as error:
                self.fail(keys, f"{name} `{value}`: {error}")
            if any(word.partition("=")[0] == "--seed" for word in words):
                self.fail(keys, f"{name} `{value}`: write `seeds: [1]` in the row")
        return value

    def rows(self, columns):
        written = self.content.get("rows")
        if not isinstance(written, list) or not written:
            self.fail(("rows",), "`rows` is a list of systems, each with a `key`")
        rows = []
        for index, conf in enumerate(written):
            at = ("rows", index)
            if not isinstance(conf, dict):
                self.fail(("rows",), f"row {index + 1} must be `key: value` lines, found {conf!r}")
            # The line of a row is that of its first key.
            for name in conf:
                if name not in _ROW:
                    self.fail((*at, str(name)), f"unknown key `{name}`{choices(name, _ROW)}")
            key = self.text(conf, "key", at, needed=True)
            if not re.fullmatch(r"[A-Za-z0-9_.+-]+", key):
                self.fail((*at, "key"), f"row `{key}`: letters, digits and _ . + - only")
            if key in [row.key for row in rows]:
                self.fail((*at, "key"), f"row `{key}` is given twice")
            rows.append(
                Row(
                    key,
                    self.text(conf, "label", at) or key,
                    self.options((*at, "options"), conf.get("options") or {})
                    if "options" in conf
                    else None,
                    self.seeds(conf, at),
                    self.published(conf, at, columns),
                    self.text(conf, "note", at),
                )
            )
        return rows

    def seeds(self, conf, at):
        seeds = conf.get("seeds", [None])
        good = isinstance(seeds, list) and seeds and len(set(map(str, seeds))) == len(seeds)
        if not good or any(type(seed) is not int or seed < 0 for seed in seeds if "seeds" in conf):
            self.fail((*at, "seeds"), f"`seeds` is a list such as [1, 2, 3], found {seeds!r}")
        return tuple(seeds)

    def published(self, conf, at, columns):
        at = (*at, "published")
        names = [column.name for column in columns]
        written = self.mapping(conf.get("published"), at, names)
        source = conf.get("source") or self.content.get("source")
        found = {}
        for name, cell in written.items():
            value, said = cell, source
            if isinstance(cell, dict):
                self.mapping(cell, (*at, name), ("value", "source"))
                value, said = cell.get("value"), cell.get("source") or source
            if not isinstance(said, (str, type(None))):
                self.fail((*at, name), f"`source` of `{name}` must be a text, found {said!r}")
            if value == UNKNOWN:
                found[name] = Published()
                continue
            if type(value) not in (int, float):
                self.fail((*at, name), f"`{name}` must be a number or {UNKNOWN}, found {value!r}")
            elif not 0 <= value < float("inf"):
                self.fail((*at, name), f"`{name}` cannot be {value!r}; it is a number from 0")
            elif not said:
                self.fail((*at, name), f"`{name}`: {value} has no source; write `source:`")
            key = (*at, name, "value") if isinstance(cell, dict) else (*at, name)
            found[name] = Published(value, said, self.content.texts.get(key, str(value)))
        missing = [name for name in names if written and name not in written]
        missing = [name for name in missing if name != PARAMETERS]
        if missing:
            self.fail(at, f"published lacks `{missing[0]}`: write a number or {UNKNOWN}")
        return found

    def check_configs(self, table):
        """Read every row's blocks now, so that a table of many hours does not fail at its end."""
        made = {}
        for index, row in enumerate(table.rows):
            if row.options is None:
                continue
            at = ("rows", index, "key")
            try:
                runs = table.runs(row)
            except UserError as error:
                self.fail(at, f"row `{row.key}`: {error}")
            for run in runs:
                other = made.setdefault((run.exp, run.inference_tag), row)
                if other is not row:
                    self.fail(
                        at,
                        f"row `{row.key}`: the same experiment as row `{other.key}` ({run.exp}): "
                        "give them different options, or blocks of different names",
                    )
