"""Commands in processes of their own that need not import ESPnet again.

They are forked from a server that has imported it: real processes, with real signals and exit
codes, that start in a moment. The tests' own process cannot fork them, as torch refuses a backward
pass in the child of a process that has run one.
"""

import atexit
import functools
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path

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
    os.chdir(folder)
    if kill_at is not None:
        _kill_at(kill_at)
    _become(f"mambaasr.bin.{name}", arguments)


# What stands in for ``python``: it has a command of this package forked, and is any other call's
# own interpreter.
_STAND_IN = """#!{python} -IS
import json, os, socket, sys
words = sys.argv[1:]
if words[:1] != ["-m"] or not words[1].startswith("mambaasr."):
    os.execv({python!r}, [{python!r}, *words])
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    server.sendall(json.dumps([words[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
    status = int(server.recv(16))
sys.exit(status if status >= 0 else 128 - status)
"""


@functools.cache
def python_folder():
    """Return a folder with a ``python`` for PATH whose ``-m mambaasr...`` starts in a moment.

    The server that it asks ends with this process.
    """
    folder = tempfile.mkdtemp(prefix="python")
    atexit.register(shutil.rmtree, folder)
    address = f"{folder}/socket"
    ready, told = SERVER.Pipe(duplex=False)
    # No daemon, which could have no children.
    server = SERVER.Process(target=_serve, args=(address, told))
    server.start()
    atexit.register(server.kill)
    ready.recv()
    script = Path(folder, "python")
    script.write_text(_STAND_IN.format(python=sys.executable, address=address))
    script.chmod(0o755)
    return folder


def _serve(address, ready):
    import lhotse.recipes  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        ready.send(None)
        while True:
            asker, _ = listener.accept()
            if os.fork() == 0:
                break
            asker.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(asker, 1, 3)
    words, folder, environment = json.loads(asker.makefile().readline())
    if child := os.fork():
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        asker.sendall(str(status).encode())
        return
    asker.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _become(words[0], words[1:])


def _become(module, arguments):
    """Run a module as the command of this process."""
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8", buffering=1)
    sys.stderr = open(2, "w", closefd=False, encoding="utf-8", buffering=1)
    multiprocessing.set_start_method(None, force=True)  # again the default
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


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
