"""What the files of an experiment say: whether it is finished and still right, what it took."""

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mambaasr.config import dump, same_config
from mambaasr.fingerprint import fingerprint, fingerprint_bytes
from mambaasr.recipe.task import Task, load

_EPOCH = re.compile(r"INFO: (\d+)epoch results: (.*)$", re.M)
# What humanfriendly writes: "time=1 hour, 3 minutes and 2.5 seconds".
_TIME = re.compile(r"(?<!\w)time=((?:[\d.]+ [a-z]+(?:, | and )?)+)")
_PART = re.compile(r"([\d.]+) (week|day|hour|minute|second)")
_PARAMETERS = re.compile(r"Total Number of model parameters: ([\d.]+) ([KMB ])")
_SIZES = {" ": 1e-6, "K": 1e-3, "M": 1.0, "B": 1e3}
_SECONDS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1}


def training_problem(exp: Path, config: Mapping[str, Any]) -> str | None:
    """Return why an experiment is not a finished training, or None if it is.

    Args:
        exp: its folder.
        config: what it is to be trained with, without the command line's options.
    """
    marker = load(_training(exp).marker)
    if marker is None:
        return "not finished" if exp.is_dir() else "not run"
    file, now = exp / ".stages/train.yaml", dump(config)
    made = next((mark for path, mark in marker["inputs"].items() if str(file).endswith(path)), None)
    if made != fingerprint_bytes(now.encode()) and not (
        made == fingerprint(file) and same_config(file.read_text(encoding="utf-8"), now)
    ):
        return f"{exp} was trained with other blocks than the table names now"
    return None


def _training(exp: Path) -> Task:
    """Return the task whose marker and timings say what became of a training."""
    return Task("training", [], exp, stage=11)


def decoding_problem(place: Path, recipe: Path) -> str | None:
    """Return why what was decoded and scored of a test set is not to be shown, or None.

    What stages 12 and 13 read of the experiments must be what is there now: after another
    training the old figures stay until they are made again.

    Args:
        place: ``<expdir>/<experiment>/<decoding>/<set>``.
        recipe: the recipe's folder.
    """
    for stage, task, done in ((12, "decoding", "decoded"), (13, "scoring", "scored")):
        marker = load(Task(f"{task} of {place.name}", [], place, stage=stage).marker)
        if marker is None:
            return f"{place.name} is not {done}"
        for path, mark in marker["inputs"].items():
            inside = os.path.relpath(recipe / path, place.parents[2]).split(os.sep)[0] != ".."
            # A model that was removed to save room is none that changed.
            if inside and fingerprint(recipe / path) not in (mark, None):
                return f"{place.name} was decoded or scored before {path} changed"
    return None


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
            # Its --output_dir is the only folder of this name.
            if exp.name in [Path(word).name for word in shlex.split(fields[6])]:
                used.append(float(fields[4]))
    return sum(used) or None
