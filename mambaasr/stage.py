"""One step of a recipe: skipped when done and still right, else run, timed, logged and marked.

A step is a command with the files it reads and writes. After success its *marker*, a small JSON
file, keeps the command's options, a fingerprint of every input and output, and the code that it
runs. The next run compares: equal means skip, anything else is named and the command runs again.
Contents count, not times, so a step that was redone with the same result does not make the steps
behind it run. Whatever file the command names is an input.

A step that goes on from checkpoints, a training, is not redone for other code: days would be
thrown away for a change that may not touch it. It is told, and each start of a training leaves
its commit beside the model (:mod:`mambaasr.provenance`). So are outputs that were mended by hand.
"""

import fcntl
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.fingerprint import (
    fingerprint,
    fingerprint_corpus,
    fingerprints,
    is_config,
    named_files,
    read_config,
)
from mambaasr.source import PACKAGE, code_of

# What a command gets after SIGTERM to write what it holds, before SIGKILL.
GRACE_SECONDS = 10


@dataclass
class Step:
    """What a step is made of.

    Attributes:
        name: for people, e.g. "3. Format audio: train".
        marker: JSON file that says what the step was done with.
        command: program and arguments; run as they are, never through a shell.
        inputs: files it reads beside those that the command names; one that does not exist
            counts as such (optional files).
        outputs: files that must exist afterwards.
        ignore: names of options whose values do not change the result ("nj").
        variables: what else decides the result, name -> value, such as the environment's.
        programs: folder with programs of the command's own, which call this package.
        corpora: folders that it reads as a whole, and may first fill.
        keep_outputs: outputs may be changed by hand afterwards; they only must be there.
        resumes: checkpoints from which the command goes on where one exists. Such a step is
            refused, not redone, when options or inputs changed since the checkpoint was begun.
        recorded: how many of the command's words are compared; an input stands for the others.
            None: all of them.
        log: file to which the command's output is added.
        timings: table (tsv) to which a line is added for each run.
    """

    name: str
    marker: Path
    command: list[str]
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    ignore: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    programs: Path | None = None
    corpora: list[str] = field(default_factory=list)
    keep_outputs: bool = False
    resumes: list[str] = field(default_factory=list)
    recorded: int | None = None
    log: Path | None = None
    timings: Path | None = None

    @property
    def begun(self) -> Path:
        """Record of what a step that can resume was begun with."""
        return Path(f"{self.marker}.begun")


def options(command: list[str], ignore: Iterable[str] = ()) -> dict[str, list[list[str]]]:
    """Sort a command's words by option: ``{"": words before any, "--nj": [[...], ...]}``.

    The order of different options does not matter to a command, that of equal ones does.
    """
    found = {"": [[]]}
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


def record(step: Step) -> dict:
    """Return what is compared between runs: options, inputs, corpora and code."""
    words = without_launcher(step.command[: step.recorded])
    given = options(words, step.ignore)
    inputs = fingerprints([*step.inputs, *named_files(options(words), step.inputs, step.outputs)])
    return {
        "name": step.name,
        "options": given | {name: [[value]] for name, value in step.variables.items()},
        "inputs": inputs,
        "corpora": _corpora(step),
        "code": code_of(words, step.programs, [path for path in inputs if is_config(path)]),
    }


def _corpora(step):
    """Fingerprints of the folders that are there, but for one that the step's own notes lie in."""
    notes = os.path.realpath(step.marker)
    found = {}
    for folder in step.corpora:
        inside = os.path.commonpath([notes, os.path.realpath(folder)]) == os.path.realpath(folder)
        mark = None if inside else fingerprint_corpus(folder)
        if mark is not None:
            found[str(folder)] = mark
    return found


def changes(old: dict, new: dict) -> list[str]:
    """Say in words how options and inputs of two records differ; [] where they do not."""
    if "code" not in old:
        old, new = _both_noted(old, new), _both_noted(new, old)
    found = []
    for key in sorted(old["options"].keys() | new["options"].keys()):
        before, now = (_words(one["options"].get(key)) for one in (old, new))
        if before != now:
            found.append(f"{key or 'command'}: {before}, now {now}")
    return found + _changed_files(old["inputs"], new["inputs"])


def _both_noted(record, other):
    """What two records have both: version 0.1.0 noted other options and inputs, and a launcher."""
    return {
        key: {name: value for name, value in record[key].items() if name and name in other[key]}
        for key in ("options", "inputs")
    }


def changes_around(old: dict, new: dict) -> list[str]:
    """Say in words how code and corpora of two records differ; [] where they do not.

    A corpus that is gone, to save room, is none that changed.
    """
    now = new["corpora"]
    before = {folder: mark for folder, mark in old.get("corpora", {}).items() if folder in now}
    return _changed_files(before, now) + _code_changes(old.get("code"), new["code"])


def _code_changes(old, new):
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


def _words(values):
    return "not given" if values is None else " ".join(shlex.join(one) for one in values) or "given"


def _changed_files(old, new):
    found = []
    for path in sorted(old.keys() | new.keys()):
        before, now = old.get(path), new.get(path)
        if before != now:
            verb = "is new" if before is None else "is gone" if now is None else "changed"
            found.append(f"{path} {verb}" if path in new else f"{path} is no longer read")
    return found


def _wrong_outputs(step, old):
    """Say what is missing or changed of the outputs that are asked for now."""
    if step.keep_outputs:
        return [f"{path} is missing" for path in step.outputs if not Path(path).exists()]
    found = []
    for path, now in fingerprints(step.outputs).items():
        if now is None:
            found.append(f"{path} is missing")
        elif now != old.get(path, now):
            found.append(f"{path} changed")
    return found


def load(path: str | Path) -> dict | None:
    """Read a marker; None where there is none or it cannot be understood."""
    try:
        marker = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return marker if isinstance(marker, dict) and {"options", "inputs"} <= marker.keys() else None


def reasons(step: Step, now: dict) -> list[str]:
    """Say why a step has to run; an empty list when it is done and still right."""
    old = load(step.marker)
    if old is None:
        if load(step.begun):
            return ["it was begun and not finished"]
        return ["its marker cannot be read"] if step.marker.exists() else ["it was not done yet"]
    found = changes(old, now) + _wrong_outputs(step, old.get("outputs", {}))
    if step.resumes:
        return found
    if _mended(step, old):
        # Another option asks for other outputs; the rest does not outweigh somebody's work.
        return [reason for reason in found if reason.startswith("--")]
    return found + changes_around(old, now)


def _mended(step, old):
    """Outputs that were changed by hand, and may be; the audio behind them is the corpus's."""
    if not step.keep_outputs:
        return []
    made = old.get("outputs", {})
    now = {str(Path(path)): fingerprint(path) for path in step.outputs}
    if None in now.values():  # it has to be made anew
        return []
    return [path for path, mark in now.items() if mark != made.get(path, mark)]


def _told(step, old, now):
    """Say what changed around a step that stays, once: the marker knows the new state then."""
    around = changes_around(old, now)
    why, advice = "", "to train anew, give it a name of its own (--asr_tag or --lm_tag NAME)"
    if not step.resumes:
        around = changes(old, now) + around
        why = f", for {', '.join(_mended(step, old))} changed by hand"
        advice = "to make it anew all the same: --force true"
    if around:
        _say(f"{step.name}: stays as it is{why}, though {'; '.join(around)}; {advice}")
        _write(step.marker, old | now)


def refuse_foreign_checkpoint(step: Step, now: dict) -> None:
    """Stop before a command goes on from a checkpoint that was made with something else.

    Other code is no reason, only told: a mended program goes on from where it broke.
    """
    found = next((Path(path) for path in step.resumes if Path(path).exists()), None)
    if found is None:
        return
    old = load(step.begun)
    different = changes(old, now) if old else ["nothing says how it was made"]
    if different:
        raise UserError(
            f"{step.name}: {found} was made with something else, and the training would go on "
            "from it:\n  " + "\n  ".join(different) + "\n"
            "  Give the new training a name of its own (--asr_tag or --lm_tag NAME), or move the "
            f"old one away (mv {shlex.quote(str(found.parent))} ...),\n  or go on from the old "
            "weights all the same (--resume_changed true), e.g. for more epochs."
        )
    if around := changes_around(old, now):
        _say(f"{step.name}: goes on from {found}, begun by another version: {'; '.join(around)}")


def tell_shorter_training(step: Step, now: dict) -> None:
    """Say, where a training begins, that the same one is there with fewer epochs."""
    if not step.resumes or any(Path(path).exists() for path in step.resumes):
        return
    place = Path(step.marker).parent.parent
    (mine, epochs), found = _epochs(now, place), []
    option = "--lm_exp" if "mambaasr.bin.lm_train" in step.command else "--asr_exp"
    for path in sorted(place.parent.glob(f"*/.stages/{step.begun.name}")):
        folder, other = path.parent.parent, None
        with suppress(OSError):  # a colleague's folder may be closed
            if any((folder / Path(one).name).exists() for one in step.resumes):
                other = load(path)
        same, fewer = _epochs(other, folder) if other else (None, None)
        if same == mine and epochs and fewer and fewer < epochs:
            found.append((fewer, folder))
    for fewer, folder in sorted(found)[-1:]:
        _say(
            f"{step.name}: {folder} is the same training but for {fewer} epochs instead of "
            f"{epochs}. This one starts anew; to go on from that one, stop it and add\n"
            f"  {option} {shlex.quote(str(folder))} --resume_changed true"
        )


def _epochs(made, folder):
    """Return a training's record without its folder and its epochs, and their number or None."""
    given = {key: value for key, value in made["options"].items() if key != "--max_epoch"}
    epochs = made["options"].get("--max_epoch", [[None]])[-1][-1]
    for config in filter(is_config, made["inputs"]) if epochs is None else ():
        epochs = epochs or read_config(config).get("max_epoch")
    same = json.dumps([given, made["inputs"]], ensure_ascii=False)
    same = same.replace(f"{folder}/", "").replace(f'"{folder}"', '""')
    return same, int(epochs) if str(epochs).isdigit() else None


def run(step: Step, resume_changed: bool = False, force: bool = False) -> int:
    """Do a step if it needs doing.

    Args:
        step: the :class:`Step`.
        resume_changed: go on from a checkpoint that was made with other inputs or options.
        force: run although it is done.

    Returns:
        The command's exit status, 0 when skipped.

    Raises:
        UserError: an input changed under a checkpoint, an output is missing after success, or
            the command cannot be started.
    """
    with _lock(step) as lock:
        now = record(step)
        why = reasons(step, now)
        if not why and not force:
            _say(f"{step.name}: done already")
            _told(step, load(step.marker), now)
            return 0
        before = load(step.marker) if step.keep_outputs else None
        if before and not force and (mended := _mended(step, before)):
            raise UserError(
                f"{step.name}: {'; '.join(why)}; but {', '.join(mended)} changed by hand: keep a "
                "copy and make it anew (--force true), or go on with what is there (--stage 2)"
            )
        if not resume_changed:
            refuse_foreign_checkpoint(step, now)
        tell_shorter_training(step, now)
        _say(f"{step.name}: " + ("; ".join(why) or "asked for by --force"))
        program = step.command[0]
        if shutil.which(program) is None:
            what = "is not executable" if Path(program).exists() else "no such program"
            raise UserError(f"{step.name}: {what}: {program}")
        there = fingerprints(step.outputs) if before else {}
        with _open_log(step) as log:
            # Only now: a command that cannot begin leaves what is done as it is.
            step.marker.unlink(missing_ok=True)
            if step.resumes:
                _write(step.begun, now)
            begun, used = time.time(), _cpu_seconds()
            status = _execute(step, lock, log)
            seconds, used = time.time() - begun, _cpu_seconds() - used
        missing = [str(path) for path in step.outputs if not Path(path).exists()]
        if status == 0 and not missing:
            made = {"outputs": fingerprints(step.outputs), "seconds": round(seconds, 1)}
            # A corpus may have come only now.
            _write(step.marker, now | made | {"corpora": _corpora(step)})
        elif before and fingerprints(step.outputs) == there:
            _write(step.marker, before)  # it failed before it touched anything
        _add_timing(step, begun, seconds, used, status)
        if status != 0:
            where = f"; log: {step.log}" if step.log else ""
            told = status - 128 in (signal.SIGINT, signal.SIGTERM)
            how = "was stopped" if told else "failed"
            _say(f"{step.name}: {how} with exit status {status}{where}")
            return status
        if missing:
            raise UserError(f"{step.name}: ended without writing {', '.join(missing)}")
        _say(f"{step.name}: {seconds:.0f} s")
        return 0


def _say(message):
    print(f"{time.strftime('%H:%M:%S')} {message}", flush=True)


def _write(path, content):
    with atomic_write(path) as stream:
        json.dump(content, stream, indent=1, ensure_ascii=False)
        stream.write("\n")


@contextmanager
def _writing(path):
    """Give the path to what goes wrong with it: a full disk, a folder that is closed."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def _lock(step):
    """Hold the step: two runs in one recipe take turns, and the second finds the work done."""
    path = Path(f"{step.marker}.lock")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that nothing is left to be written when it is closed.
        lock = path.open("ab+", buffering=0)
    with lock:
        with _writing(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                other = lock.read().decode().strip()
                _say(f"{step.name}: another run is at it (process {other}); waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            lock.truncate(0)
            lock.write(b"%d\n" % os.getpid())
        yield lock


def _execute(step, lock, log):
    """Run the command, its output to the terminal and to the log; return the exit status.

    The command ends when this process is told to end or loses its parent, so that a recipe that
    was killed leaves no training behind. The lock goes on to the command: should this process be
    killed alone, nobody else starts the step while the command lives.
    """
    parent = os.getppid()
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            process = subprocess.Popen(
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(lock.fileno(),),
            )
        except OSError as error:
            raise UserError(f"{step.name}: {error}") from error
        copier = _Copier(process.stdout, log)
        try:
            while True:
                try:
                    status = process.wait(timeout=0.5)
                    break
                except subprocess.TimeoutExpired:
                    if os.getppid() != parent:
                        sys.exit(128 + signal.SIGHUP)
        finally:
            _end(process)
            copier.finish()
    finally:
        signal.signal(signal.SIGTERM, previous)
    return status if status >= 0 else 128 - status


def _end(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _open_log(step):
    path = Path(step.log or os.devnull)
    head = f"# {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {shlex.join(step.command)}\n"
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(head.encode("utf-8", "surrogateescape"))
            log.flush()
            yield log


class _Copier(threading.Thread):
    """Copies a command's output to the terminal as it comes, and line by line to the log.

    Of a progress bar, which overwrites its line, the log keeps what was seen last.
    """

    def __init__(self, source, log):
        super().__init__(daemon=True)
        self.source, self.log, self.error = source, log, None
        self.start()

    def run(self):
        rest = b""
        while block := self.source.read1(2**16):
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
            *lines, rest = (rest + block).split(b"\n")
            self._keep(lines)
        self._keep([rest] if rest else [])

    def _keep(self, lines):
        try:
            for line in lines:
                self.log.write(line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n")
            self.log.flush()
        except OSError as error:
            # The terminal must go on being read, or the command would block; told at the end.
            self.error = error

    def finish(self):
        # A grandchild may hold the pipe open after the command itself has ended.
        self.join(timeout=5)
        if self.error:
            raise self.error


def _cpu_seconds():
    """Processor time of all commands that have ended, their own children included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _add_timing(step, begun, seconds, cpu_seconds, status):
    if step.timings is None:
        return
    path = Path(step.timings)
    start, end = (
        time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(when))
        for when in (begun, begun + seconds)
    )
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="surrogateescape") as stream:
            if stream.tell() == 0:
                stream.write("step\tstart\tend\tseconds\tcpu_seconds\texit\tcommand\n")
            command = shlex.join(step.command).replace("\t", " ").replace("\n", " ")
            row = (step.name, start, end, f"{seconds:.1f}", f"{cpu_seconds:.1f}", status, command)
            stream.write("\t".join(map(str, row)) + "\n")
