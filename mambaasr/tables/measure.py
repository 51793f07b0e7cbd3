"""What the experiments of a table's rows say; nothing but their files counts."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.recipe.experiment import (
    cpu_seconds,
    decoding_problem,
    epoch_seconds,
    logged_parameters,
    training_problem,
)
from mambaasr.score.results import read_json
from mambaasr.tables.table import LID, PARAMETERS, RATES, Column, Row, Run, Table


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
        problems = list(filter(None, [training_problem(first.exp, first.config)]))
        if not problems:
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
                elif not math.isnan(value):
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
        if problem := decoding_problem(file.parent, table.recipe):
            problems.append(problem)
        else:
            found[file.parent.name] = read_json(file)
    return found


def _value(column: Column, run: Run, decodings: dict[str, Any]) -> float | None:
    """Return a column's value, None where it is not there, NaN where the row can have none."""
    if column.metric in (*RATES, LID):
        if column.set not in decodings:
            return None
        found = read_json(run.exp / run.inference_tag / column.set / "score/score.json")
        if column.metric == LID:
            lid = found.get("lid")
            # A model that does not look for languages has no such rate, and lacks none.
            return 100 * lid["correct"] / lid["utterances"] if lid else math.nan
        *kind, rate = column.metric.lower().split()
        keys = ["normalized_wer"] if kind == ["normalized"] else [rate, *kind]
        for key in [*keys, *(("languages", column.language) if column.language else ())]:
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
