"""A child process that measures: with a memory cap, under a time limit, and alone when it dies."""

import multiprocessing
import os
import resource
import signal
import sys
import traceback


class Failed(Exception):
    """A call in a worker came to no result.

    Attributes:
        kind: "memory", "limit", "missing", "refused" or "error".
    """

    def __init__(self, kind, text):
        super().__init__(text)
        self.kind = kind


class Refused(Exception):
    """The sides of a comparison do not compute the same."""


def available_memory():
    """Bytes that a new process could take without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as stream:
            for line in stream:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:  # no such file but on Linux
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gigabytes(size):
    """Format a number of bytes."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


class Worker:
    """One child process; ``call`` runs a function in it.

    Args:
        threads: threads of torch and of the kernels.
        share: the part of the memory that is free now that the child may take.
    """

    def __init__(self, threads, share=0.9):
        self.threads, self.share = threads, share
        self.process = None

    def _start(self):
        context = multiprocessing.get_context("spawn")
        self.cap = int(available_memory() * self.share)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_serve, args=(theirs, self.threads, self.cap), daemon=True
        )
        self.process.start()
        theirs.close()
        kind, value = self._receive(120)  # imports torch; not part of anybody's time
        if kind != "result":
            raise Failed(kind, value)

    def call(self, function, *args, limit):
        """Return ``function(*args)`` as the child computes it, within ``limit`` seconds.

        Raises:
            Failed: out of memory, over the limit, or an error, which is printed by the child.
        """
        if self.process is None:
            self._start()
        try:
            self.pipe.send((function, args))
        except BrokenPipeError:
            # While it was idle the kernel took its memory for another one.
            self.close()
            self._start()
            self.pipe.send((function, args))
        kind, value = self._receive(limit)
        if kind != "result":
            raise Failed(kind, value)
        return value

    def _receive(self, limit):
        try:
            if self.pipe.poll(limit):
                kind, value = self.pipe.recv()
                if kind == "memory":
                    value = f"out of memory (cap {gigabytes(self.cap)})"
                return kind, value
        except EOFError:
            self.process.join(10)
            code = self.process.exitcode
            self.close()
            # The kernel's out-of-memory killer, or an allocation that C++ could not survive.
            if code in (-signal.SIGKILL, -signal.SIGABRT):
                return "memory", f"out of memory (cap {gigabytes(self.cap)}; killed)"
            return "error", f"the process died with exit code {code}"
        self.close()
        return "limit", f"more than {limit:g} s"

    def close(self):
        """End the child; the next call starts a new one."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _serve(pipe, threads, cap):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    if sys.platform == "linux":
        # Private memory only: torch's CUDA libraries alone map gigabytes that nobody touches.
        resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as stream:
            stream.write("1000")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    pipe.send(("result", None))
    while True:
        try:
            function, args = pipe.recv()
        except EOFError:  # the parent is gone
            return
        try:
            answer = ("result", function(*args))
        except MemoryError:
            answer = ("memory", "")
        except Exception as error:  # whatever a peer raises is the answer, by name
            answer = _failure(error)
            if answer[0] == "error":
                traceback.print_exc()
        pipe.send(answer)


def _failure(error):
    from bench.peers import Missing

    text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    if isinstance(error, Missing):
        return "missing", str(error)
    if isinstance(error, Refused):
        return "refused", str(error)
    # torch's allocator, C++'s, and oneDNN's
    signs = ("can't allocate memory", "bad_alloc", "could not create a memory", "out of memory")
    if any(sign in str(error) for sign in signs):
        return "memory", text
    return "error", text
