"""What the experiments of a table's rows say; nothing but their files counts."""

import os
import re
import shlex
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.config import dump, same_config
from mambaasr.fingerprint import fingerprint, fingerprint_bytes
from mambaasr.recipe.task import Task, load
from mambaasr.score.results import read_json
from mambaasr.tables.table import PARAMETERS, RATES, Column, Row, Run, Table

_EPOCH = re.compile(r"INFO: (\d+)epoch results: (.*)$", re.M)
# What humanfriendly writes: "time=1 hour, 3 minutes and 2.5 seconds".
_TIME = re.compile(r"(?<!\w)time=((?:[\d.]+ [a-z]+(?:, | and )?)+)")
_PART = re.compile(r"([\d.]+) (week|day|hour|minute|second)")
_PARAMETERS = re.compile(r"Total Number of model parameters: ([\d.]+) ([KMB ])")
_SIZES = {" ": 1e-6, "K": 1e-3, "M": 1.0, "B": 1e3}
_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}


@dataclass
class Measured:
    """What was found of a row.

    Attributes:
        values: column name -> one value for each seed that has it.
        seeds: the seeds whose training is finished.
        hours, cpu_hours: of each seed's training, by the clock and of the processor, where known.
        commits: that trained, decoded, and trained the language model, each once.
        missing: why seeds or columns have no value, a line each.
    """

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seeds: list[int | None] = field(default_factory=list)
    hours: list[float] = field(default_factory=list)
    cpu_hours: list[float] = field(default_factory=list)
    commits: dict[str, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    missing: list[str] = field(default_factory=list)


def measure(table: Table, row: Row) -> Measured:
    """Collect what the experiments of a row say; a file that cannot be read is a UserError."""
    found = Measured()
    for seed, of_seed in groupby(row.runs, attrgetter("seed")):
        runs = {run.decoding: run for run in of_seed}
        first = next(iter(runs.values()))
        problem, problems = training_problem(first), []
        if problem:
            problems.append(problem)
        else:
            found.seeds.append(seed)
            found.commits["trained"] |= dict.fromkeys(provenance.commits(first.exp))
            if seconds := epoch_seconds(first.exp / "train.log"):
                found.hours.append(sum(seconds.values()) / 3600)
            if used := cpu_seconds(first.exp):
                found.cpu_hours.append(used / 3600)
            decoded = {name: _decodings(table, run, problems) for name, run in runs.items()}
            for column in table.columns:
                run = runs.get(column.decoding, first)
                value = _value(column, run, decoded[run.decoding])
                if value is None:
                    problems.append(f"no {column.name}")
                else:
                    found.values[column.name].append(value)
            files = [each for sets in decoded.values() for each in sets.values()]
            for each in files:
                found.commits["decoded"][each.get("commit") or "unknown"] = None
                if lm := each.get("lm_file"):
                    made = provenance.commits(Path(lm).parent)
                    found.commits["language model"] |= dict.fromkeys(made)
        name = f"seed {seed}: " if seed is not None else ""
        found.missing += [name + problem for problem in problems]
    return found


def training_problem(run: Run) -> str | None:
    """Return why an experiment is not this run's finished training, or None if it is."""
    marker = load(_training(run.exp).marker)
    if marker is None:
        return "not finished" if run.exp.is_dir() else "not run"
    config = run.exp / ".stages/train.yaml"
    made = next(
        (mark for path, mark in marker["inputs"].items() if str(config).endswith(path)), None
    )
    now = dump(run.config)
    if made != fingerprint_bytes(now.encode()) and not (
        made == fingerprint(config) and same_config(config.read_text(encoding="utf-8"), now)
    ):
        return f"{run.exp} was trained with other blocks than the table names now"
    return None


def _training(exp: Path) -> Task:
    """Return the task whose marker and timings say what became of a training."""
    return Task("training", [], exp, stage=11)


def decoding_problem(run: Run, place: Path, recipe: Path) -> str | None:
    """Return why what lies in a decoding's folder is not to be shown, or None.

    What stages 12 and 13 read of the experiments must be what is there now: after another
    training the old figures stay until they are made again.
    """
    for stage, task, done in ((12, "decoding", "decoded"), (13, "scoring", "scored")):
        marker = load(Task(f"{task} of {place.name}", [], place, stage=stage).marker)
        if marker is None:
            return f"{place.name} is not {done}"
        for path, mark in marker["inputs"].items():
            inside = os.path.relpath(recipe / path, run.exp.parent).split(os.sep)[0] != ".."
            # A model that was removed to save room is none that changed.
            if inside and fingerprint(recipe / path) not in (mark, None):
                return f"{place.name} was decoded or scored before {path} changed"
    return None


def _decodings(table: Table, run: Run, problems: list[str]) -> dict[str, dict[str, Any]]:
    """Return test set -> content of decode.json, of the table's sets, or where it names none, all.

    What is not to be shown is added to ``problems``.
    """
    found, folder = {}, run.exp / run.inference_tag
    names = dict.fromkeys(column.set for column in table.columns if column.set)
    files = [folder / name / "decode.json" for name in names] or sorted(
        folder.glob("*/decode.json")
    )
    for file in filter(Path.exists, files):
        if problem := decoding_problem(run, file.parent, table.recipe):
            problems.append(problem)
        else:
            found[file.parent.name] = read_json(file)
    return found


def _value(column: Column, run: Run, decodings: dict[str, Any]) -> float | None:
    """Return a column's value, or None where it is not there."""
    if column.metric in RATES:
        if column.set not in decodings:
            return None
        *macro, rate = column.metric.lower().split()
        found = read_json(run.exp / run.inference_tag / column.set / "score/score.json")
        for key in (rate, *macro):
            found = found.get(key) or {}
        return found.get("error_rate")
    if column.metric == "RTF":
        several = [each for name, each in decodings.items() if column.set in (None, name)]
        audio = sum(each["audio_seconds"] for each in several)
        return sum(each["decoding_seconds"] for each in several) / audio if audio else None
    if column.metric == PARAMETERS:
        counts = [each["parameters"] for each in decodings.values()]
        return counts[0] / 1e6 if counts else logged_parameters(run.exp / "train.log")
    if not (seconds := epoch_seconds(run.exp / "train.log").values()):
        return None
    return sum(seconds) / (3600 if column.metric == "training hours" else 60 * len(seconds))


def _log(path: Path) -> str:
    """Return a log, an empty text where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def logged_parameters(log: Path) -> float | None:
    """Return the millions of parameters that a training's log states, or None."""
    found = _PARAMETERS.findall(_log(log))
    return float(found[-1][0]) * _SIZES[found[-1][1]] if found else None


def epoch_seconds(log: Path) -> dict[int, float]:
    """Return epoch -> seconds of training and validation, from an experiment's train.log.

    Of an epoch that a killed run began and a later one repeated, the later one counts.
    """
    found = {}
    for epoch, said in _EPOCH.findall(_log(log)):
        parts = _PART.findall(" ".join(_TIME.findall(said)))
        found[int(epoch)] = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return found


def cpu_seconds(exp: Path) -> float | None:
    """Return the processor time of an experiment's training from ``timings.tsv``, or None.

    The file lies beside the experiment and counts every attempt that ended by itself.
    """
    used = []
    for line in _log(exp.parent / "timings.tsv").split("\n"):
        fields = line.split("\t")
        if fields[0] == _training(exp).name and len(fields) == 7:
            if exp.name in [Path(word).name for word in shlex.split(fields[6])]:
                used.append(float(fields[4]))
    return sum(used) or None
