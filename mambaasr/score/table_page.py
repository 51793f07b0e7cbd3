"""A table filled: published figures, what was measured here, the difference, and what to run."""

import csv
import json
import os
import re
import shlex
import statistics
from dataclasses import dataclass, field
from pathlib import Path

from mambaasr import provenance
from mambaasr.config import dump
from mambaasr.errors import UserError
from mambaasr.fingerprint import fingerprint, fingerprint_bytes
from mambaasr.score.score_files import align_table
from mambaasr.score.tables import OF_A_SET, PARAMETERS, Published
from mambaasr.stage import load

_EPOCH = re.compile(r"INFO: (\d+)epoch results: (.*)$", re.M)
_TIME = re.compile(r"(?<![\w])time=((?:[\d.]+ [a-z]+(?:, | and )?)+)")
_PARAMETERS = re.compile(r"Total Number of model parameters: ([\d.]+) ([KMB ])")
_SIZES = {" ": 1e-6, "K": 1e-3, "M": 1.0, "B": 1e3}
_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}
_DIGITS = {PARAMETERS: 2, "RTF": 3, "training hours": 2, "epoch minutes": 2}


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

    values: dict = field(default_factory=dict)
    seeds: list = field(default_factory=list)
    hours: list = field(default_factory=list)
    cpu_hours: list = field(default_factory=list)
    trained: list = field(default_factory=list)
    decoded: list = field(default_factory=list)
    lms: list = field(default_factory=list)
    missing: list = field(default_factory=list)


def measure(table, row):
    """Collect what the experiments of a row say; nothing but their files counts."""
    found = Measured()
    for seed in row.seeds if row.options is not None else ():
        runs = {run.decoding: run for run in table.runs(row) if run.seed == seed}
        any_run = next(iter(runs.values()))
        state = training_state(any_run)
        name = f"seed {seed}: " if seed is not None else ""
        if state:
            found.missing.append(f"{name}{state}")
            continue
        found.seeds.append(seed)
        _add(found.trained, provenance.commits(any_run.exp))
        seconds = epoch_seconds(any_run.exp / "train.log")
        if seconds:
            found.hours.append(sum(seconds.values()) / 3600)
        seconds = cpu_seconds(any_run.exp)
        if seconds:
            found.cpu_hours.append(seconds / 3600)
        several = {}
        for decoding, run in runs.items():
            for place in _places(run, table.sets or None):
                problem = decoding_state(run, place, table.recipe)
                if problem:
                    found.missing.append(f"{name}{problem}")
                else:
                    several.setdefault(decoding, {})[place.name] = _read(place / "decode.json")
        for column in table.columns:
            run = runs.get(column.decoding, any_run)
            value = _value(column, run, several.get(run.decoding, {}))
            if value is None:
                found.missing.append(f"{name}no {column.name}")
            else:
                found.values.setdefault(column.name, []).append(value)
        decodings = [each for sets in several.values() for each in sets.values()]
        _add(found.decoded, (each.get("commit") or "unknown" for each in decodings))
        lms = dict.fromkeys(each.get("lm_file") for each in decodings if each.get("lm_file"))
        for file in lms:
            _add(found.lms, provenance.commits(Path(file).parent))
    return found


def _add(found, more):
    found += [each for each in dict.fromkeys(more) if each not in found]


def training_state(run):
    """Return why an experiment is not this run's finished training, or None if it is."""
    marker = load(run.exp / ".stages/11_training.json")
    if marker is None:
        return "not finished" if run.exp.is_dir() else "not run"
    config = str(run.exp / ".stages/train.yaml")
    made = next((mark for path, mark in marker["inputs"].items() if config.endswith(path)), None)
    if made != fingerprint_bytes(dump(run.config).encode()):
        return f"{run.exp} was trained with other blocks than the table names now"
    return None


def decoding_state(run, place, recipe):
    """Return why what lies in a decoding's folder is not to be shown, or None.

    What stages 12 and 13 read of the experiments must be what is there now: after another
    training the old figures stay until they are made again.
    """
    for step in ("12_decoding_of", "13_scoring_of"):
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{step}_{place.name}")
        marker = load(place / f".stages/{name}.json")
        if marker is None:
            return f"{place.name} is not {'decoded' if step.startswith('12') else 'scored'}"
        for path, mark in marker["inputs"].items():
            inside = os.path.relpath(recipe / path, run.exp.parent).split(os.sep)[0] != ".."
            # A model that was removed to save room is none that changed.
            if inside and fingerprint(recipe / path) not in (mark, None):
                return f"{place.name} was decoded or scored before {path} changed"
    return None


def _value(column, run, decodings):
    """Return a column's value; ``decodings``: test set -> content of its decode.json."""
    if column.metric in OF_A_SET:
        if column.set not in decodings:
            return None
        *macro, rate = column.metric.lower().split()
        place = run.exp / run.inference_tag / column.set
        found = (_read(place / "score/score.json") or {}).get(rate)
        for key in macro:
            found = (found or {}).get(key)
        return found and found.get("error_rate")
    if column.metric == "RTF":
        found = [each for name, each in decodings.items() if column.set in (None, name)]
        audio = sum(each["audio_seconds"] for each in found)
        return sum(each["decoding_seconds"] for each in found) / audio if audio else None
    if column.metric == PARAMETERS:
        found = [each["parameters"] for each in decodings.values()]
        return found[0] / 1e6 if found else logged_parameters(run.exp / "train.log")
    seconds = epoch_seconds(run.exp / "train.log")
    if not seconds:
        return None
    total = sum(seconds.values())
    return total / 3600 if column.metric == "training hours" else total / 60 / len(seconds)


def _places(run, sets):
    """Return the folders of some sets that were decoded, or of all that there are."""
    folder = run.exp / run.inference_tag
    if sets is None:
        sets = sorted(path.parent.name for path in folder.glob("*/decode.json"))
    return [folder / each for each in sets if (folder / each / "decode.json").exists()]


def logged_parameters(log):
    """Return the millions of parameters that a training's log tells, or None."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None
    found = _PARAMETERS.findall(text)
    return float(found[-1][0]) * _SIZES[found[-1][1]] if found else None


def _read(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, make it anew: {error}") from error


def epoch_seconds(log):
    """Return epoch -> seconds of training and validation, from an experiment's train.log.

    Of an epoch that a killed run began and a later one did anew, the later one counts.
    """
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    return {
        int(epoch): sum(map(_seconds, _TIME.findall(said))) for epoch, said in _EPOCH.findall(text)
    }


def cpu_seconds(exp):
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


def _seconds(text):
    """Return the seconds of what humanfriendly writes: ``1 hour, 3 minutes and 2.5 seconds``."""
    parts = re.findall(r"([\d.]+) (week|day|hour|minute|second)s?", text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def table_page(table, command):
    """Return a table as Markdown.

    Args:
        table: a :class:`mambaasr.score.tables.Table`.
        command: how the user calls ``table.sh`` with this table, for what was not run.
    """
    measured = {row.key: measure(table, row) for row in table.rows}
    has_published = any(row.published for row in table.rows)
    header = ["System", *([""] if has_published else []), *(_title(c) for c in table.columns)]
    header += ["training", "seeds", "commit"]
    rows = []
    for row in table.rows:
        found = measured[row.key]
        lines = []
        if row.published:
            lines.append(["published", *(_published(row, c) for c in table.columns)])
        if found.values:
            lines.append(["measured", *(_cell(found, c) for c in table.columns)])
            if row.published:
                lines.append(["difference", *(_difference(row, found, c) for c in table.columns)])
        if not lines or not (found.values or row.options is None):
            lines.append(["measured", *("-" for _ in table.columns)])
        for index, (kind, *cells) in enumerate(lines):
            tail = ["", "", ""]
            if kind == "measured":
                tail = [_training(found), _seeds(row, found), _commits(found)]
            label = row.label if index == 0 else ""
            rows.append([label, *([kind] if has_published else []), *cells, *tail])
    sections = [f"# {table.title}\n", _head(table), align_table(header, rows)]
    sections += [_reading(table, measured), _notes(table), _to_run(table, measured, command)]
    return "\n".join(section for section in sections if section)


def _training(found):
    """Return the time of a training, by the clock and of the processor: means over the seeds."""
    if not found.hours:
        return "-"
    text = _duration(statistics.fmean(found.hours))
    if len(found.cpu_hours) == len(found.hours):
        text += f" (CPU {_duration(statistics.fmean(found.cpu_hours))})"
    return text


def _commits(found):
    """Return the commits behind a row's figures; those of the training first."""
    did = {"trained": found.trained, "decoded": found.decoded, "language model": found.lms}
    did = {what: ", ".join(commits) for what, commits in did.items() if commits}
    if len(set(did.values())) < 2:
        return next(iter(did.values()), "-")
    return "; ".join(f"{what} {commits}" for what, commits in did.items())


def _duration(hours):
    return f"{hours:.1f} h" if hours >= 3 else f"{hours * 60:.1f} min"


def _title(column):
    return "parameters [M]" if column.metric == PARAMETERS else column.name


def _published(row, column):
    return row.published.get(column.name, Published()).text


def _cell(found, column):
    values = found.values.get(column.name)
    return _mean(values, _DIGITS.get(column.metric, 2)) if values else "-"


def _mean(values, digits):
    """Return mean ± standard deviation of a sample; of equal values their one value."""
    text = f"{statistics.fmean(values):.{digits}f}"
    if len(values) > 1 and len(set(values)) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def _difference(row, found, column):
    value = row.published.get(column.name, Published()).value
    values = found.values.get(column.name)
    # Times of different machines have no difference that says something.
    if value is None or not values or column.metric not in (*OF_A_SET, PARAMETERS):
        return "-"
    return f"{statistics.fmean(values) - value:+.{_DIGITS.get(column.metric, 2)}f}"


def _seeds(row, found):
    if row.seeds == (None,):
        return "1" if found.seeds else "0"
    done = ", ".join(map(str, found.seeds)) or "none"
    return done if len(found.seeds) == len(row.seeds) else f"{done} of {len(row.seeds)}"


def _head(table):
    lines = []
    if table.paper:
        paper = table.paper
        said = [f"arXiv {paper['arxiv']}"] if paper.get("arxiv") else []
        said += [str(paper[key]) for key in ("title",) if paper.get(key)]
        said += [f"table {paper['table']}"] if paper.get("table") else []
        said += [str(paper[key]) for key in ("url", "note") if paper.get(key)]
        lines.append("Paper: " + "; ".join(said) + ".")
    if table.note:
        lines.append(table.note.strip())
    if table.scale:
        lines.append(f"Scale {table.scale}: {table.needs.strip()}.")
    return "\n\n".join(lines) + "\n" if lines else ""


def _reading(table, measured):
    """Say how the figures are to be read, where there are measured ones."""
    if not any(found.values for found in measured.values()):
        return ""
    several = any(len(found.seeds) > 1 for found in measured.values())
    text = (
        "Error rates in %; RTF: seconds of computing a second of audio, summed over the workers; "
        "training: epochs by the clock, and processor time with start-up and repeated attempts."
    )
    if several:
        text += " Of several seeds: mean ± standard deviation."
    here = provenance.environment()
    return (
        f"{text} Printed by `{provenance.command()}`, commit "
        f"{provenance.git_commit() or 'unknown'}, {provenance.now()}; torch {here['torch']}, "
        f"ESPnet {here['espnet']}.\n"
    )


def _notes(table):
    """Return the sources of the published figures, and the rows' notes."""
    sources = {}
    for row in table.rows:
        known = {name: each.source for name, each in row.published.items() if each.source}
        for source in dict.fromkeys(known.values()):
            names = [name for name in known if known[name] == source]
            of = f", {' and '.join(names)}" if len(names) < len(known) else ""
            sources.setdefault(source, []).append(row.label + of)
    lines = []
    for source, rows in sources.items():
        where = "" if len(sources) == 1 else f" ({'; '.join(rows)})"
        lines.append(f"- Published figures: {source}{where}\n")
    lines += [f"- {row.label}: {row.note.strip()}\n" for row in table.rows if row.note]
    return "".join(lines)


def _to_run(table, measured, command):
    """List the rows that are not all there, each with the command that would run it."""
    lines = []
    for row in table.rows:
        missing = measured[row.key].missing
        if row.options is None:
            if not row.published:
                lines.append(f"- {row.label}: the table does not say how to make it.\n")
        elif missing:
            call = shlex.join([*command, "--rows", row.key])
            lines.append(f"- {row.label}: {'; '.join(missing)}: `{call}`\n")
    return "## Not run\n\n" + "".join(lines) if lines else ""
