"""One task of a recipe: skipped when done and still right, else run, timed, logged and marked.

A task is a command with the files it reads and writes. After success its *marker*, a small JSON
file, keeps the command's options, a fingerprint of every input and output, and the code that it
runs. The next run compares: equal means skip, anything else is named and the command runs again.
Contents count, not times, so a task that was redone with the same result does not make the tasks
behind it run. Whatever file the command names is an input.

A task that resumes from checkpoints, a training, is not redone for other code: days would be
thrown away for a change that may not touch it. It is reported, and each start of a training leaves
its commit beside the model (:mod:`mambaasr.provenance`). So are outputs that were mended by hand.
"""

import json
import os
import re
import resource
import shlex
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from mambaasr.config import differences, same_config
from mambaasr.errors import TRY_AGAIN, UserError
from mambaasr.files import atomic_write
from mambaasr.fingerprint import (
    fingerprint,
    fingerprint_corpus,
    fingerprints,
    is_config,
    named_files,
    read_config,
)
from mambaasr.recipe.process import execute, locked, open_log, require_program, say, writing
from mambaasr.source import PACKAGE, code_of

Record = dict[str, Any]
Marks = dict[str, str | None]

# What a signal does to a command.
_ENDS: dict[int, str] = {
    signal.SIGINT: "was stopped",
    signal.SIGTERM: "was stopped",
    signal.SIGKILL: "was killed, perhaps because the memory was full,",
}
# How many processes and devices do the work does not change what comes out.
DEVICES = ("nj", "ngpu")


@dataclass
class Task:
    """What a task is made of.

    Attributes:
        title: for people, e.g. "format audio of train".
        command: program and arguments; run as they are, never through a shell.
        folder: where its marker and its log go; None for a task that always runs.
        inputs: files it reads beside those that the command names; one that does not exist
            counts as such (optional files).
        outputs: files that must exist afterwards.
        needs: files without which it cannot begin -> what to do about it.
        generated: configs that the driver itself writes before the command runs -> their text.
        ignore: names of options whose values do not change the result.
        variables: what else decides the result, name -> value, such as the environment's.
        programs: folder with programs of the command's own, which call this package.
        corpora: folders that it reads as a whole, and may first fill.
        keep_outputs: outputs may be changed by hand afterwards; they only must be there.
        resumes: checkpoints from which the command resumes where one exists. Such a task is
            refused, not redone, when options or inputs changed since the checkpoint was begun.
        scratch: folders from which the command resumes, which --force removes first.
        recorded: how many of the command's words are compared; an input stands for the others.
            None: all of them.
        stage: number of its stage; 0: that of the function that yields it.
    """

    title: str
    command: list[str]
    folder: str | Path | None = None
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    needs: dict[str, str] = field(default_factory=dict)
    generated: dict[str, str] = field(default_factory=dict)
    ignore: Sequence[str] = DEVICES
    variables: dict[str, str] = field(default_factory=dict)
    programs: Path | None = None
    corpora: list[str] = field(default_factory=list)
    keep_outputs: bool = False
    resumes: list[str] = field(default_factory=list)
    scratch: list[str] = field(default_factory=list)
    recorded: int | None = None
    stage: int = 0

    @property
    def name(self) -> str:
        """Stage and title, for messages."""
        return f"stage {self.stage}: {self.title}"

    @property
    def marker(self) -> Path:
        """JSON file that says what the task was done with."""
        return Path(self.folder or "", ".stages", f"{self._id}.json")

    @property
    def begun(self) -> Path:
        """Record of what a task that can resume was begun with."""
        return Path(f"{self.marker}.begun")

    @property
    def log(self) -> Path:
        """File to which the command's output is added."""
        return Path(self.folder or "", "log", f"{self._id}.log")

    @property
    def _id(self) -> str:
        return f"{self.stage}_{re.sub('[^A-Za-z0-9_.-]', '_', self.title)}"


def options(command: list[str], ignore: Iterable[str] = ()) -> dict[str, list[list[str]]]:
    """Sort a command's words by option: ``{"": words before any, "--nj": [[...], ...]}``.

    The order of different options does not matter to a command, that of equal ones does.
    """
    found: dict[str, list[list[str]]] = {"": [[]]}
    key = ""
    for word in command:
        if word.startswith("--") and len(word) > 2:
            key, equals, value = word.partition("=")
            found.setdefault(key, []).append([value] if equals else [])
            key = "" if equals else key
        else:
            found[key][-1].append(word)
    return {key: value for key, value in found.items() if key.lstrip("-") not in ignore}


def without_launcher(command: list[str]) -> list[str]:
    """Leave out what stands before a module of this package: interpreter and torchrun.

    How many processes or devices do the work does not decide what comes out.
    """
    for index, (word, module) in enumerate(pairwise(command)):
        if word == "-m" and module.startswith(f"{PACKAGE}."):
            return command[index + 1 :]
    return command


def record(task: Task) -> Record:
    """Return what is compared between runs: options, inputs, corpora and code."""
    words = without_launcher(task.command[: task.recorded])
    given = options(words, task.ignore)
    inputs = fingerprints([*task.inputs, *named_files(options(words), task.inputs, task.outputs)])
    return {
        "name": task.name,
        "options": given | {name: [[value]] for name, value in task.variables.items()},
        "inputs": inputs,
        "corpora": _corpora(task),
        "code": code_of(words, task.programs, [path for path in inputs if is_config(path)]),
    }


def _corpora(task: Task) -> dict[str, str]:
    """Fingerprints of the folders that are there, less the one that holds the marker."""
    notes = os.path.realpath(task.marker)
    found: dict[str, str] = {}
    for folder in task.corpora:
        inside = os.path.commonpath([notes, os.path.realpath(folder)]) == os.path.realpath(folder)
        mark = None if inside else fingerprint_corpus(folder)
        if mark is not None:
            found[str(folder)] = mark
    return found


def changes(old: Record, new: Record) -> list[str]:
    """Say in words how options and inputs of two records differ; [] where they do not."""
    if "code" not in old:
        old, new = _both_noted(old, new), _both_noted(new, old)
    found = []
    for key in sorted(old["options"].keys() | new["options"].keys()):
        before, now = (_words(one["options"].get(key)) for one in (old, new))
        if before != now:
            found.append(f"{key or 'command'}: {before}, now {now}")
    return found + _changed_files(old["inputs"], new["inputs"])


def _both_noted(record: Record, other: Record) -> Record:
    """What two records have both: version 0.1.0 noted other options and inputs, and a launcher."""
    return {
        key: {name: value for name, value in record[key].items() if name and name in other[key]}
        for key in ("options", "inputs")
    }


def changes_around(old: Record, new: Record) -> list[str]:
    """Say in words how code and corpora of two records differ; [] where they do not.

    A corpus that is gone, to save room, is none that changed.
    """
    now = new["corpora"]
    before = {folder: mark for folder, mark in old.get("corpora", {}).items() if folder in now}
    return _changed_files(before, now) + _code_changes(old.get("code"), new["code"])


def _code_changes(old: dict[str, str] | None, new: dict[str, str]) -> list[str]:
    if old is None:
        return ["nothing says by which code it was made"]
    different = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    files = [name for name in different if "/" in name]
    releases = [name for name in different if name not in files]
    found = [
        f"{name} {old.get(name, 'not used')}, now {new.get(name, 'not used')}" for name in releases
    ]
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        found.append(f"its code changed ({', '.join(files[:3])}{more})")
    return found


def _words(values: list[list[str]] | None) -> str:
    return "not given" if values is None else " ".join(shlex.join(one) for one in values) or "given"


def _changed_files(old: Marks, new: Marks) -> list[str]:
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, now = old.get(path), new.get(path)
        if before != now:
            verb = "is new" if before is None else "is gone" if now is None else "changed"
            found.append(f"{path} {verb}" if path in new else f"{path} is no longer read")
    return found


def _wrong_outputs(task: Task, old: Marks) -> list[str]:
    """Say what is missing or changed of the outputs that are asked for now."""
    if task.keep_outputs:
        return [f"{path} is missing" for path in task.outputs if not Path(path).exists()]
    found = []
    for path, now in fingerprints(task.outputs).items():
        if now is None:
            found.append(f"{path} is missing")
        elif now != old.get(path, now):
            found.append(f"{path} changed")
    return found


def load(path: str | Path) -> Record | None:
    """Read a marker; None where there is none or it cannot be understood."""
    try:
        marker = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return marker if isinstance(marker, dict) and {"options", "inputs"} <= marker.keys() else None


def reasons(task: Task, now: Record) -> list[str]:
    """Say why a task has to run; an empty list when it is done and still right."""
    old = load(task.marker)
    if old is None:
        if load(task.begun):
            return ["it was begun and not finished"]
        return ["its marker cannot be read"] if task.marker.exists() else ["it was not done yet"]
    found = changes(old, now) + _wrong_outputs(task, old.get("outputs", {}))
    if task.resumes:
        return found
    if _mended(task, old):
        # Another option asks for other outputs; the rest does not outweigh somebody's work.
        return [reason for reason in found if reason.startswith("--")]
    return found + changes_around(old, now)


def _mended(task: Task, old: Record) -> list[str]:
    """Outputs that were changed by hand, and may be; the audio behind them is the corpus's."""
    if not task.keep_outputs:
        return []
    made = old.get("outputs", {})
    now = {str(Path(path)): fingerprint(path) for path in task.outputs}
    if None in now.values():  # it has to be made anew
        return []
    return [path for path, mark in now.items() if mark != made.get(path, mark)]


def _report_around(task: Task, old: Record, now: Record) -> None:
    """Report once what changed around a task that is kept."""
    around = changes_around(old, now)
    why, advice = "", "to train anew, give it a name of its own (--asr_tag or --lm_tag NAME)"
    if not task.resumes:
        around = changes(old, now) + around
        why = f", for {', '.join(_mended(task, old))} changed by hand"
        advice = "to make it anew all the same: --force true"
    if around and around != old.get("reported"):
        say(f"{task.name}: stays as it is{why}, though {'; '.join(around)}; {advice}")
        # What was mended by hand was made with the old options, and is once that is undone.
        _write(task.marker, old | now if task.resumes else old | {"reported": around})


def refuse_foreign_checkpoint(
    task: Task, now: Record, stale: Mapping[str, bytes | None] | None = None
) -> None:
    """Refuse to resume from a checkpoint that was made with something else.

    Other code is no reason, only reported: a mended program resumes from where it broke.

    Args:
        task: the :class:`Task`.
        now: its record.
        stale: what its generated files held before.
    """
    found = next((Path(path) for path in task.resumes if Path(path).exists()), None)
    if found is None:
        return
    old = load(task.begun) or {}
    different = changes(old, now) if old else ["nothing says how it was made"]
    if different:
        different = _with_keys(different, task, stale or {})
        raise UserError(
            f"{task.name}: {found} was made with something else, and the training would resume "
            "from it:\n  " + "\n  ".join(different) + "\n"
            "  Give the new training a name of its own (--asr_tag or --lm_tag NAME), or move the "
            f"old one away (mv {shlex.quote(str(found.parent))} ...),\n  or resume from the old "
            "weights all the same (--resume_changed true), e.g. for more epochs."
        )
    if around := changes_around(old, now):
        say(f"{task.name}: resumes from {found}, begun by another version: {'; '.join(around)}")


def report_shorter_training(task: Task, now: Record) -> None:
    """Say, where a training begins, that the same one is there with fewer epochs."""
    if not task.resumes or any(Path(path).exists() for path in task.resumes):
        return
    place = Path(task.marker).parent.parent
    (mine, epochs), found = _epochs(now, place), []
    option = "--lm_exp" if "mambaasr.bin.lm_train" in task.command else "--asr_exp"
    for path in sorted(place.parent.glob(f"*/.stages/{task.begun.name}")):
        folder, other = path.parent.parent, None
        with suppress(OSError):  # a colleague's folder may be closed
            if any((folder / Path(one).name).exists() for one in task.resumes):
                other = load(path)
        same, fewer = _epochs(other, folder) if other else (None, None)
        if same == mine and epochs and fewer and fewer < epochs:
            found.append((fewer, folder))
    for fewer, folder in sorted(found)[-1:]:
        say(
            f"{task.name}: {folder} is the same training but for {fewer} epochs instead of "
            f"{epochs}. This one starts anew; to resume from that one, stop it and add\n"
            f"  {option} {shlex.quote(str(folder))} --resume_changed true"
        )


def _epochs(made: Record, folder: Path) -> tuple[str, int | None]:
    """Return a training's record without its folder and its epochs, and their number or None."""
    given = {key: value for key, value in made["options"].items() if key != "--max_epoch"}
    epochs = made["options"].get("--max_epoch", [[None]])[-1][-1]
    for config in filter(is_config, made["inputs"]) if epochs is None else ():
        epochs = epochs or read_config(config).get("max_epoch")
    same = json.dumps([given, made["inputs"]], ensure_ascii=False)
    same = same.replace(f"{folder}/", "").replace(f'"{folder}"', '""')
    return same, int(epochs) if str(epochs).isdigit() else None


def run(
    task: Task,
    resume_changed: bool = False,
    force: bool = False,
    timings: str | Path | None = None,
) -> int:
    """Do a task if it needs doing.

    Args:
        task: the :class:`Task`.
        resume_changed: resume from a checkpoint that was made with other inputs or options.
        force: run although it is done.
        timings: table (tsv) to which a line is added for each run.

    Returns:
        The command's exit status, 0 when skipped.

    Raises:
        UserError: a file that it needs is missing, an input changed under a checkpoint, an
            output is missing after success, or the command cannot be started.
    """
    for path, remedy in task.needs.items():
        if not os.path.exists(path):
            raise UserError(f"{path}: {remedy}")
    if task.folder is None:
        return _call(task)
    with locked(Path(f"{task.marker}.lock"), task.name) as lock:
        with _generated(task) as stale:
            now = record(task)
            why = _with_keys(reasons(task, now), task, stale)
            if not why and not force:
                say(f"{task.name}: done already")
                _report_around(task, load(task.marker) or now, now)
                return 0
            before = load(task.marker) if task.keep_outputs else None
            if before and not force and (mended := _mended(task, before)):
                raise UserError(
                    f"{task.name}: {'; '.join(why)}; but {', '.join(mended)} changed by hand: keep "
                    "a copy and make it anew (--force true), or leave it as it is (--stage 2)"
                )
            if not resume_changed:
                refuse_foreign_checkpoint(task, now, stale)
        report_shorter_training(task, now)
        say(f"{task.name}: " + ("; ".join(why) or "asked for by --force"))
        require_program(task.command[0], task.name)
        for path in task.scratch if force else ():
            shutil.rmtree(path, ignore_errors=True)
        there = fingerprints(task.outputs) if before else {}
        with open_log(task.log, task.command) as log:
            # Only now: a command that cannot begin leaves what is done as it is.
            task.marker.unlink(missing_ok=True)
            if task.resumes:
                _write(task.begun, now)
            begun, used = time.time(), _cpu_seconds()
            status = execute(task.command, task.name, lock, log)
            seconds, used = time.time() - begun, _cpu_seconds() - used
        missing = [str(path) for path in task.outputs if not Path(path).exists()]
        if status == 0 and not missing:
            made = {"outputs": fingerprints(task.outputs), "seconds": round(seconds, 1)}
            # A corpus may have come only now.
            _write(task.marker, now | made | {"corpora": _corpora(task)})
        elif before and fingerprints(task.outputs) == there:
            _write(task.marker, before)  # it failed before it touched anything
        _add_timing(task, timings, begun, seconds, used, status)
        if status != 0:
            how = _ENDS.get(status - 128, "failed")
            if status == TRY_AGAIN:
                how = "is not whole, and the same run tries again what is missing; it ended"
            say(f"{task.name}: {how} with exit status {status}; log: {task.log}")
            return status
        if missing:
            raise UserError(f"{task.name}: ended without writing {', '.join(missing)}")
        say(f"{task.name}: {seconds:.0f} s")
        return 0


@contextmanager
def _generated(task: Task) -> Iterator[dict[str, bytes | None]]:
    """Write the generated files; where the task is then refused, put back what was there.

    Yields:
        What they held before.
    """
    before = _stale(task)
    for path in before:
        with atomic_write(path) as stream:
            stream.write(task.generated[path])
    try:
        yield before
    except UserError:
        for path, content in before.items():
            if content is None:
                os.unlink(path)
                continue
            with atomic_write(path, "wb") as stream:
                stream.write(content)
        raise


def _call(task: Task) -> int:
    """Run a command that is cheap and done each time."""
    with open(os.devnull, "ab+", buffering=0) as nothing:
        return execute(task.command, task.name, nothing, nothing)


def would_run(task: Task, changing: Iterable[str] = ()) -> list[str]:
    """Say why a task would run, writing nothing; an empty list when it is done and still right.

    Args:
        task: the :class:`Task`.
        changing: files that tasks before it would write anew.
    """
    if task.folder is None:
        return ["it always does"]
    if load(task.marker) is None:
        return reasons(task, {})
    # Of the words that are not recorded an input stands for their files.
    counted = {*task.inputs, *task.command[: task.recorded]}
    stale = _stale(task)
    why = [f"{path} changed" for path in stale if path in counted]
    if why := _with_keys(why, task, stale) or reasons(task, record(task)):
        return why
    read = {*task.inputs, *named_files(options(task.command), task.inputs, task.outputs)}
    return [f"{path} may change" for path in sorted(read & set(changing))]


def _stale(task: Task) -> dict[str, bytes | None]:
    """Return what generated files hold that are not there, or say something else."""
    found: dict[str, bytes | None] = {}
    for path, text in task.generated.items():
        old = Path(path).read_bytes() if os.path.isfile(path) else None
        if old is None or not same_config(old.decode("utf-8", "replace"), text):
            found[path] = old
    return found


def _with_keys(why: list[str], task: Task, stale: Mapping[str, bytes | None]) -> list[str]:
    """Say of generated configs that changed which options did."""
    named = {}
    for path, old in stale.items():
        old_text = (old or b"").decode("utf-8", "replace")
        if keys := differences(old_text, task.generated[path]):
            named[f"{path} changed"] = f"{path} changed ({'; '.join(keys)})"
    return [named.get(reason, reason) for reason in why]


def _write(path: Path, content: Record) -> None:
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1, ensure_ascii=False)
        stream.write("\n")


def _cpu_seconds() -> float:
    """Processor time of all commands that have ended, their own children included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _add_timing(
    task: Task,
    timings: str | Path | None,
    begun: float,
    seconds: float,
    cpu_seconds: float,
    status: int,
) -> None:
    if timings is None:
        return
    path = Path(timings)
    start, end = (
        time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(when))
        for when in (begun, begun + seconds)
    )
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            if stream.tell() == 0:
                stream.write("task\tstart\tend\tseconds\tcpu_seconds\texit\tcommand\n")
            command = shlex.join(task.command).replace("\t", " ").replace("\n", " ")
            row = (task.name, start, end, f"{seconds:.1f}", f"{cpu_seconds:.1f}", status, command)
            stream.write("\t".join(map(str, row)) + "\n")
