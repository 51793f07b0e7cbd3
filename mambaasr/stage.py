"""One step of a recipe: skipped when done and still right, else run, timed, logged and marked.

A step is a command with the files it reads and writes. After success its *marker*, a small JSON
file, keeps the command's options and a fingerprint of every input and output. The next run
compares: equal means skip, anything else is named and the command runs again. Contents count, not
times, so a step that was redone with the same result does not make the steps behind it run. Only
the audio that a ``wav.scp`` names is too much to be read: it is known by sizes and times.
"""

import fcntl
import hashlib
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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# Text files and models of a usual size are read whole; above it a read would take seconds.
HASHED_BYTES = 256 * 2**20
# What a command gets after SIGTERM to write what it holds, before SIGKILL.
GRACE_SECONDS = 10


@dataclass
class Step:
    """What a step is made of.

    Attributes:
        name: for people, e.g. "3. Format audio: train".
        marker: JSON file that says what the step was done with.
        command: program and arguments; run as they are, never through a shell.
        inputs: files it reads; one that does not exist counts as such (optional files).
        outputs: files that must exist afterwards.
        ignore: names of options whose values do not change the result ("nj").
        variables: what else decides the result, name -> value, such as the environment's.
        keep_outputs: outputs may be changed by hand afterwards; they only must be there.
        resumes: checkpoints from which the command goes on where one exists. Such a step is
            refused, not redone, when anything changed since the checkpoint was begun.
        log: file to which the command's output is added.
        timings: table (tsv) to which a line is added for each run.
    """

    name: str
    marker: Path
    command: list
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    ignore: list = field(default_factory=list)
    variables: dict = field(default_factory=dict)
    keep_outputs: bool = False
    resumes: list = field(default_factory=list)
    log: Path = None
    timings: Path = None

    @property
    def begun(self):
        """Record of what a step that can resume was begun with."""
        return Path(f"{self.marker}.begun")


def fingerprint(path):
    """Return a short text that changes with a file's content, or None where nothing is.

    Files above 256 MiB are known by size and modification time, folders by all files below them
    but hidden and compiled ones.
    """
    path = Path(path)
    try:
        info = path.stat()
        if path.is_dir():
            inside = [one for one in sorted(path.iterdir()) if not one.name.startswith((".", "__"))]
            content = json.dumps([(one.name, fingerprint(one)) for one in inside])
            return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()
        if info.st_size > HASHED_BYTES:
            return f"size {info.st_size} mtime {info.st_mtime_ns}"
        digest = hashlib.blake2b(digest_size=16)
        with path.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def fingerprint_bytes(content):
    """Return what :func:`fingerprint` says of a file that holds these bytes (below 256 MiB)."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def fingerprint_audio(path):
    """Return a short text that changes with the paths, sizes and times of a ``wav.scp``'s audio.

    A file that is not there counts as such. None where there is no ``wav.scp``.
    """
    digest = hashlib.blake2b(digest_size=16)
    try:
        with open(path, "rb") as lines:
            for line in lines:
                audio = line.split(None, 1)[-1].strip()
                try:
                    info = os.stat(audio)
                    fact = b"%d %d" % (info.st_size, info.st_mtime_ns)
                except (OSError, ValueError):  # ValueError: a null byte in the path
                    fact = b"gone"
                digest.update(b"%s\0%s\n" % (audio, fact))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def fingerprints(paths):
    """Return ``{path: fingerprint}``, with a line for the audio behind each ``wav.scp``.

    An empty name is an option without its file, not the current folder.
    """
    found = {}
    for path in map(Path, filter(None, paths)):
        found[str(path)] = fingerprint(path)
        if path.name == "wav.scp":
            found[f"the audio of {path}"] = fingerprint_audio(path)
    return found


def options(command, ignore=()):
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


def record(step):
    """Return what is compared between runs: options and inputs."""
    return {
        "name": step.name,
        "options": options(step.command, step.ignore)
        | {name: [[value]] for name, value in step.variables.items()},
        "inputs": fingerprints(step.inputs),
    }


def changes(old, new):
    """Say in words how two records differ; an empty list when they do not."""
    found = []
    for key in sorted(old["options"].keys() | new["options"].keys()):
        before, now = (_words(one["options"].get(key)) for one in (old, new))
        if before != now:
            found.append(f"{key or 'command'}: {before}, now {now}")
    return found + _changed_files(old["inputs"], new["inputs"])


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


def load(path):
    """Read a marker; None where there is none or it cannot be understood."""
    try:
        marker = json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return marker if isinstance(marker, dict) and {"options", "inputs"} <= marker.keys() else None


def reasons(step, now):
    """Say why a step has to run; an empty list when it is done and still right."""
    old = load(step.marker)
    if old is None:
        if load(step.begun):
            return ["it was begun and not finished"]
        return ["its marker cannot be read"] if step.marker.exists() else ["it was not done yet"]
    return changes(old, now) + _wrong_outputs(step, old.get("outputs", {}))


def refuse_foreign_checkpoint(step, now):
    """Stop before a command goes on from a checkpoint that was made with something else."""
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


def run(step, resume_changed=False, force=False):
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
            return 0
        if not resume_changed:
            refuse_foreign_checkpoint(step, now)
        _say(f"{step.name}: " + ("; ".join(why) or "asked for by --force"))
        program = step.command[0]
        if shutil.which(program) is None:
            what = "is not executable" if Path(program).exists() else "no such program"
            raise UserError(f"{step.name}: {what}: {program}")
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
            _write(step.marker, now | made)
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
