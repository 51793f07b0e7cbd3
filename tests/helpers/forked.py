"""Commands in processes of their own that need not import ESPnet again.

They are forked from a server that has imported it: real processes, with real signals and exit
codes, that start in a moment. The tests' own process cannot fork them, as torch refuses a backward
pass in the child of a process that has run one.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mambaasr.task.asr", "mambaasr.task.lm", "mambaasr.decode.load"])
# What makes a file whole or visible.
OPERATIONS = ("replace", "fsync", "link", "unlink", "symlink")


class Command:
    """``python -m mambaasr.bin.NAME ARGUMENT ...`` in a folder, started at once.

    Args:
        name: of the command's module.
        arguments: of the command.
        folder: to run in.
        kill_at: SIGKILL comes before this operation on a file (0 is the first), if given.
        output: file descriptor that gets all that is printed; a file of its own by default.
    """

    def __init__(self, name, arguments, folder, kill_at=None, output=None):
        self._printed = tempfile.TemporaryFile()
        output = self._printed.fileno() if output is None else output
        path = f"/proc/{os.getpid()}/fd/{output}"
        given = (name, list(map(str, arguments)), str(folder), kill_at, path)
        self._process = SERVER.Process(target=_run, args=given)
        self._process.start()
        self.pid = self._process.pid

    def poll(self):
        """Return the exit code, -N after signal N, or None while it runs."""
        return self._process.exitcode

    def send_signal(self, number):
        os.kill(self.pid, number)

    def wait(self, timeout=300):
        """Wait for the end; return (exit code, all that was printed)."""
        self._process.join(timeout)
        if self.poll() is None:
            self._process.kill()
            self._process.join()
            raise AssertionError(f"still running after {timeout} s: {self.printed()}")
        return self.poll(), self.printed()

    def printed(self):
        """Return what was printed until now."""
        return os.pread(self._printed.fileno(), 1 << 24, 0).decode()


def _run(name, arguments, folder, kill_at, output):
    stream = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(stream, descriptor)
    os.close(stream)
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", closefd=False, buffering=1)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # again the default
    sys.argv = [name, *arguments]
    if kill_at is not None:
        _kill_at(kill_at)
    runpy.run_module(f"mambaasr.bin.{name}", run_name="__main__", alter_sys=True)


def _kill_at(left):
    """Kill this process before its ``left``-th operation on a file."""

    def counted(operation):
        def run(*args, **kwargs):
            nonlocal left
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
            return operation(*args, **kwargs)

        return run

    for operation in OPERATIONS:
        setattr(os, operation, counted(getattr(os, operation)))
