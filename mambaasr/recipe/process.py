"""A task's command as a process: its lock, its output in terminal and log, its end."""

import ctypes
import errno
import fcntl
import functools
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import psutil

from mambaasr.errors import UserError

# What a command gets after Ctrl-C and after SIGTERM to write what it holds, before the next signal.
GRACE_SECONDS = 10
# So long a terminal is waited for that does not take what is written.
SCREEN_SECONDS = 5
_DROPPED = b"\n[some lines were not shown: the terminal was not read; see the log]\n"
# What flock says on file systems (of networks, mostly) that have none.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
_PR_SET_PDEATHSIG = 1
_prctl: Any = getattr(ctypes.CDLL(None), "prctl", None)  # Linux only


def say(message: str) -> None:
    """Print a line with the time."""
    print_line(f"{time.strftime('%H:%M:%S')} {message}")


def print_line(line: str) -> None:
    """Print a line; a terminal that is closed or not read stops nothing."""
    _screen().show(f"{line}\n".encode("utf-8", "surrogateescape"))
    _screen().settle()


class _Screen:
    """The terminal, written to in a thread: one that nobody reads (Ctrl-S) blocks only that.

    What does not fit into its queue is not shown; of a command's output the log has it.
    """

    def __init__(self, size: int = 1000) -> None:
        self.blocks: queue.Queue[bytes | threading.Event] = queue.Queue(size)
        self.dropped = False
        self.settled = threading.Event()
        self.settled.set()
        threading.Thread(target=self._run, daemon=True).start()

    def show(self, content: bytes) -> None:
        """Write when the terminal comes to it, or never where it is far behind."""
        try:
            self.blocks.put_nowait(_DROPPED + content if self.dropped else content)
            self.dropped = False
        except queue.Full:
            self.dropped = True

    def settle(self) -> None:
        """Wait a little until all is written; not again while that is still to come."""
        if self.settled.is_set():
            settled = threading.Event()
            with suppress(queue.Full):
                self.blocks.put_nowait(settled)
                self.settled = settled
                settled.wait(SCREEN_SECONDS)

    def _run(self) -> None:
        broken = False
        while True:
            block = self.blocks.get()
            if isinstance(block, threading.Event):
                block.set()
            elif not broken:
                try:
                    _write(block)
                except OSError:  # its reader has gone, or its disk is full
                    broken = True


_screen = functools.cache(_Screen)


def _write(content: bytes) -> None:
    try:
        number = sys.stdout.fileno()
    except (AttributeError, ValueError):  # started with a closed one, or a test's
        if sys.stdout is not None:
            sys.stdout.write(content.decode("utf-8", "replace"))
        return
    # Past its buffer, whose lock a blocked thread would hold at the interpreter's end.
    while content:
        content = content[os.write(number, content) :]


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Give the path to what goes wrong with it: a full disk, a folder that is closed."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error


@contextmanager
def locked(path: Path, name: str) -> Iterator[BinaryIO]:
    """Hold a lock file: of two runs in one recipe the second waits, and finds the work done.

    Args:
        path: of the lock file, which stays.
        name: of the task, for messages.

    Where the file system has no locks, this is said once, and nobody waits.

    Raises:
        UserError: the file cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Unbuffered, so that nothing is left to be written when it is closed.
        lock = path.open("ab+", buffering=0)
    with lock:
        with writing(path):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                other = lock.read().decode().strip()
                say(f"{name}: another run is at it (process {other}); waiting")
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                _warn_of_no_locks(error.strerror)
            lock.truncate(0)
            lock.write(b"%d\n" % os.getpid())
        yield lock


@functools.cache
def _warn_of_no_locks(reason: str) -> None:
    say(f"this file system has no locks ({reason}): do not start this recipe twice at a time")


@contextmanager
def open_log(path: str | Path | None, command: list[str]) -> Iterator[BinaryIO]:
    """Open a log to be added to, with a head that names time and command; None for no log.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path or os.devnull)
    head = f"# {time.strftime('%Y-%m-%dT%H:%M:%S%z')} {shlex.join(command)}\n"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as log:
            log.write(head.encode("utf-8", "surrogateescape"))
            log.flush()
            yield log


def require_program(program: str, name: str) -> None:
    """Check that a command can begin.

    Raises:
        UserError: there is no such program, or it is not executable.
    """
    if shutil.which(program) is None:
        what = "is not executable" if Path(program).exists() else "no such program"
        raise UserError(f"{name}: {what}: {program}")


@contextmanager
def exits_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into a SystemExit, so that ``finally`` can end a command first.

    A SIGHUP that is ignored, as under nohup, stays so.
    """
    numbers = [signal.SIGTERM, signal.SIGHUP]
    ignored = [each for each in numbers if signal.getsignal(each) is signal.SIG_IGN]
    before = {
        each: signal.signal(each, lambda number, _: sys.exit(128 + number))
        for each in numbers
        if each not in ignored
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def exit_status(returncode: int) -> int:
    """Return 0 to 255 as a shell does: 128 + the signal's number where one killed it."""
    return returncode if returncode >= 0 else 128 - returncode


def execute(command: list[str], name: str, lock: BinaryIO, log: IO[bytes]) -> int:
    """Run a command, its output to the log and to the terminal; return its exit status.

    It gets SIGTERM when this process ends, however that is, so that a recipe that was killed
    leaves no training behind; so do the processes that it has started, unless SIGKILL ended this
    one. The command inherits the lock: should it outlive this process, nobody else starts the task
    meanwhile.

    Args:
        command: program and arguments; run as they are, never through a shell.
        name: of the task, for messages.
        lock, log: of :func:`locked` and :func:`open_log`.

    Returns:
        As :func:`exit_status` does.

    Raises:
        UserError: it cannot be started, or the log cannot be written.
    """
    with exits_on_sigterm():
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                pass_fds=(lock.fileno(),),
                preexec_fn=functools.partial(_end_with_parent, os.getpid()) if _prctl else None,
            )
        except OSError as error:
            raise UserError(f"{name}: {error}") from error
        copier = _Copier(process, log)
        try:
            return exit_status(process.wait())
        except KeyboardInterrupt:
            # A terminal sends it to the command too, which ends in order if it is let.
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=GRACE_SECONDS)
            raise
        finally:
            _end(process)
            copier.finish()


def _end_with_parent(parent: int) -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the kernel was told
        os._exit(128 + signal.SIGTERM)


def _end(process: subprocess.Popen) -> None:
    """End a command that still runs, and then what it has started and not ended itself."""
    if process.poll() is not None:
        return
    started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for end in (psutil.Process.terminate, psutil.Process.kill):
        for one in started:
            with suppress(psutil.NoSuchProcess):
                end(one)
        _, started = psutil.wait_procs(started, timeout=GRACE_SECONDS)


class _Copier(threading.Thread):
    """Copies a command's output line by line to the log, and as it comes to the terminal.

    Of a progress bar, which overwrites its line, the log keeps what was seen last.
    """

    def __init__(self, process: subprocess.Popen, log: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.source: Any = process.stdout
        self.log = log
        self.error: OSError | None = None
        self.writes = True
        self.start()

    def run(self) -> None:
        rest = b""
        while block := self.source.read1(2**16):
            *lines, rest = (rest + block).split(b"\n")
            self._keep(lines)
            _screen().show(block)
        self._keep([rest] if rest else [])

    def _keep(self, lines: list[bytes]) -> None:
        if not self.writes:
            return
        try:
            for line in lines:
                self.log.write(line.rstrip(b"\r").rpartition(b"\r")[2] + b"\n")
            self.log.flush()
        except OSError as error:
            # The command must go on being read, or it would block; raised at the end.
            self.error = error

    def finish(self) -> None:
        # What the command has left running may hold the pipe open, and is read, not logged.
        self.join(timeout=5)
        self.writes = False
        _screen().settle()
        if self.error:
            raise self.error
