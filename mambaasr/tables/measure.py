"""What the experiments of a table's rows say; nothing but their files counts."""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.config import dump
from mambaasr.errors import UserError
from mambaasr.fingerprint import fingerprint, fingerprint_bytes
from mambaasr.recipe.task import load
from mambaasr.tables.table import PARAMETERS, RATES, Column, Row, Run, Table

_EPOCH = re.compile(r"INFO: (\d+)epoch results: (.*)$", re.M)
_TIME = re.compile(r"(?<![\w])time=((?:[\d.]+ [a-z]+(?:, | and )?)+)")
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
        trained, decoded: the commits that did.
        lms: the commits that trained the language models.
        missing: why seeds or columns have no value, a line each.
    """

    values: dict[str, list[float]] = field(default_factory=dict)
    seeds: list[int | None] = field(default_factory=list)
    hours: list[float] = field(default_factory=list)
    cpu_hours: list[float] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)
    lms: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def measure(table: Table, row: Row) -> Measured:
    """Collect what the experiments of a row say.

    Raises:
        UserError: a file of theirs cannot be read.
    """
    found, runs = Measured(), table.runs(row)
    sets = list(dict.fromkeys(column.set for column in table.columns if column.set))
    for seed in dict.fromkeys(run.seed for run in runs):
        of_seed = {run.decoding: run for run in runs if run.seed == seed}
        any_run = next(iter(of_seed.values()))
        name = f"seed {seed}: " if seed is not None else ""
        if problem := training_problem(any_run):
            found.missing.append(name + problem)
            continue
        found.seeds.append(seed)
        _add(found.trained, provenance.commits(any_run.exp))
        if seconds := epoch_seconds(any_run.exp / "train.log"):
            found.hours.append(sum(seconds.values()) / 3600)
        if used := cpu_seconds(any_run.exp):
            found.cpu_hours.append(used / 3600)
        decoded: dict[str | None, dict[str, Any]] = {decoding: {} for decoding in of_seed}
        for decoding, run in of_seed.items():
            for place in _decoded(run, sets):
                if problem := decoding_problem(run, place, table.recipe):
                    found.missing.append(name + problem)
                else:
                    decoded[decoding][place.name] = _read(place / "decode.json")
        for column in table.columns:
            run = of_seed.get(column.decoding, any_run)
            value = _value(column, run, decoded[run.decoding])
            if value is None:
                found.missing.append(f"{name}no {column.name}")
            else:
                found.values.setdefault(column.name, []).append(value)
        decodings = [each for sets in decoded.values() for each in sets.values()]
        _add(found.decoded, (each.get("commit") or "unknown" for each in decodings))
        for file in dict.fromkeys(each.get("lm_file") for each in decodings):
            _add(found.lms, provenance.commits(Path(file).parent) if file else ())
    return found


def _add(found: list[str], more: Iterable[str]) -> None:
    found += [each for each in dict.fromkeys(more) if each not in found]


def training_problem(run: Run) -> str | None:
    """Return why an experiment is not this run's finished training, or None if it is."""
    marker = load(run.exp / ".stages/11_training.json")
    if marker is None:
        return "not finished" if run.exp.is_dir() else "not run"
    config = str(run.exp / ".stages/train.yaml")
    made = next((mark for path, mark in marker["inputs"].items() if config.endswith(path)), None)
    if made != fingerprint_bytes(dump(run.config).encode()):
        return f"{run.exp} was trained with other blocks than the table names now"
    return None


def decoding_problem(run: Run, place: Path, recipe: Path) -> str | None:
    """Return why what lies in a decoding's folder is not to be shown, or None.

    What stages 12 and 13 read of the experiments must be what is there now: after another
    training the old figures stay until they are made again.
    """
    for step, done in (("12_decoding_of", "decoded"), ("13_scoring_of", "scored")):
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{step}_{place.name}")
        marker = load(place / f".stages/{name}.json")
        if marker is None:
            return f"{place.name} is not {done}"
        for path, mark in marker["inputs"].items():
            inside = os.path.relpath(recipe / path, run.exp.parent).split(os.sep)[0] != ".."
            # A model that was removed to save room is none that changed.
            if inside and fingerprint(recipe / path) not in (mark, None):
                return f"{place.name} was decoded or scored before {path} changed"
    return None


def _decoded(run: Run, sets: list[str]) -> list[Path]:
    """Return the folders of some sets that were decoded, or where none is named, of all."""
    folder = run.exp / run.inference_tag
    names = sets or sorted(path.parent.name for path in folder.glob("*/decode.json"))
    return [folder / name for name in names if (folder / name / "decode.json").exists()]


def _value(column: Column, run: Run, decodings: dict[str, Any]) -> float | None:
    """Return a column's value; ``decodings``: test set -> content of its decode.json."""
    if column.metric in RATES:
        if column.set not in decodings:
            return None
        *macro, rate = column.metric.lower().split()
        place = run.exp / run.inference_tag / column.set
        score = (_read(place / "score/score.json") or {}).get(rate) or {}
        for key in macro:
            score = score.get(key) or {}
        return score.get("error_rate")
    if column.metric == "RTF":
        found = [each for name, each in decodings.items() if column.set in (None, name)]
        audio = sum(each["audio_seconds"] for each in found)
        return sum(each["decoding_seconds"] for each in found) / audio if audio else None
    if column.metric == PARAMETERS:
        counts = [each["parameters"] for each in decodings.values()]
        return counts[0] / 1e6 if counts else logged_parameters(run.exp / "train.log")
    seconds = epoch_seconds(run.exp / "train.log")
    if not seconds:
        return None
    total = sum(seconds.values())
    return total / 3600 if column.metric == "training hours" else total / 60 / len(seconds)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, make it anew: {error}") from error


def _log(path: Path) -> str:
    """Return a training's log, an empty text where there is none."""
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
    return {
        int(epoch): sum(map(_seconds, _TIME.findall(said)))
        for epoch, said in _EPOCH.findall(_log(log))
    }


def _seconds(text: str) -> float:
    """Return the seconds of what humanfriendly writes: ``1 hour, 3 minutes and 2.5 seconds``."""
    parts = re.findall(r"([\d.]+) (week|day|hour|minute|second)s?", text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def cpu_seconds(exp: Path) -> float | None:
    """Return the processor time of an experiment's training from ``timings.tsv``, or None.

    The file lies beside the experiment and counts every attempt that ended by itself.
    """
    try:
        with open(exp.parent / "timings.tsv", encoding="utf-8", errors="replace") as stream:
            rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        return None
    found = []
    for row in rows:
        if row.get("step") != "stage 11: training":
            continue
        words = shlex.split(row.get("command") or "")
        if "--output_dir" in words:
            if words[words.index("--output_dir") + 1].rpartition("/")[2] == exp.name:
                found.append(float(row.get("cpu_seconds") or "nan"))
    total = sum(found)
    return total if found and total == total else None
