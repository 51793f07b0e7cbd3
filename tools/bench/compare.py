"""Comparisons of sides that compute the same thing: agreement, time, peak memory.

They run in a child process: a side may take too long, or too much memory, or crash.
"""

import contextlib
import ctypes
import functools
import gc
import multiprocessing
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.utils.benchmark import Measurement, Timer

from bench.peers import Missing

Shape = tuple[int, ...]
TOLERANCE = 2e-3  # of the largest value; fp32 sums over 15000 frames in different orders
ROUNDS = 3
LONG = 10  # seconds; what takes longer runs once
SLOW, NO_ROOM = "over the limit", "out of memory"
# torch's allocator, C++'s, and oneDNN's
NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a memory", "out of memory")


class Skipped(Exception):
    """A side has no figure: "kind: why"; tables show the kind."""


def case(
    forward: Callable[[], torch.Tensor], leaves: list[torch.Tensor], backward: bool
) -> Callable[[], list[torch.Tensor]]:
    """Make what a side runs: its forward pass, and gradients of the leaves if ``backward``.

    Args:
        forward: callable without arguments that returns the output.
        leaves: tensors to take gradients of, in the same order and logical shape on each side.
        backward: with gradients.

    Returns:
        a callable that returns [output, gradients ...].
    """

    def run() -> list[torch.Tensor]:
        with torch.set_grad_enabled(backward):
            out = forward()
        if not backward:
            return [out]
        return [out.detach(), *torch.autograd.grad(out, leaves, _gradient(out.shape))]

    return run


@functools.lru_cache(maxsize=1)
def _gradient(shape: torch.Size) -> torch.Tensor:
    """Draw a gradient of an output that does not depend on the side."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Family:
    """Sides of a comparison.

    Attributes:
        title: what is computed, and what a shape means.
        sides: name -> picklable function of (shape, backward) that returns a callable, which
            returns what has to agree with our side's; the first side is ours.
        shapes: what to measure, the least work first.
        quick: a tiny shape, also to warm up with.
        targets: shape -> wanted ratio to the best peer in each mode.
        modes: of False (forward) and True (forward + backward) those to measure.
        whole: the memory includes what a side is made of.
    """

    title: str
    sides: dict[str, Callable[[Shape, bool], Callable[[], list[torch.Tensor]]]]
    shapes: tuple[Shape, ...]
    quick: Shape
    targets: dict[Shape, tuple[float, ...]] = field(default_factory=dict)
    modes: tuple[bool, ...] = (False, True)
    whole: bool = False

    def check(self, shape: Shape, backward: bool, results: list[torch.Tensor]) -> None:
        """Raise Skipped unless an output and its gradients are those of our side."""
        expected = next(iter(self.sides.values()))(shape, backward)()
        for index, (want, have) in enumerate(zip(expected, results, strict=True)):
            error = float((want - have).abs().max()) / (float(want.abs().max()) or 1.0)
            if not error <= TOLERANCE:  # NaN counts
                what = f"gradient {index}" if index else "output"
                raise Skipped(f"disagrees: {what} differs from ours by {error:.1e}")

    def trial(self, side: str, shape: Shape, backward: bool) -> dict:
        """Run a side once: {"seconds", "runs", "bytes" of peak memory}; its results are checked."""
        # The first call of anything loads code, which is neither its time nor its memory.
        self.sides[side](self.quick, backward)()
        before = resident()
        gc.freeze()  # what was imported until now is not searched again
        run = self.sides[side](shape, backward)
        before = before if self.whole else resident()
        start = time.perf_counter()
        results = run()
        elapsed = time.perf_counter() - start
        size = None if before is None else max(0, peak_memory() - before)
        if results:
            self.check(shape, backward, results)
        return {"seconds": elapsed, "runs": 1, "bytes": size}

    def time(self, side: str, shape: Shape, backward: bool, seconds: float) -> Measurement:
        """Time a side for at least so many seconds."""
        run = self.sides[side](shape, backward)
        timer = Timer("run()", globals={"run": run}, num_threads=torch.get_num_threads())
        return timer.blocked_autorange(min_run_time=seconds)


def resident() -> int | None:
    """Bytes of this process in memory, what free lists hold returned; the peak starts anew."""
    gc.collect()
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return psutil.Process().memory_info().rss


def peak_memory() -> int:
    """The most bytes in memory since :func:`resident`."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


class Worker:
    """A child process that computes with a memory cap, under a time limit, and dies alone.

    Args:
        threads: threads of torch and of the kernels.
        inline: call in this process instead: no cap, no limit, no start.
    """

    def __init__(self, threads: int, inline: bool = False) -> None:
        self.threads, self.inline = threads, inline
        self.pool: ProcessPoolExecutor | None = None

    def call(self, function: Callable, *args: Any, limit: float) -> Any:
        """Return ``function(*args)``.

        Raises:
            Skipped: it failed, needs more than 90 % of the free memory, or more than ``limit``
                seconds.
        """
        if self.inline:
            return _guarded(function, *args)
        if self.pool is None:
            cap = int(0.9 * psutil.virtual_memory().available)
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(1, spawn, _start, (self.threads, cap))
            self.pid = self.pool.submit(os.getpid).result()  # its imports are nobody's time
        try:
            return self.pool.submit(_guarded, function, *args).result(limit)
        except TimeoutError:
            self.close()
            raise Skipped(f"{SLOW}: more than {limit:g} s") from None
        except BrokenProcessPool:
            # The kernel's out-of-memory killer, or an allocation that C++ could not survive.
            self.close()
            raise Skipped(f"{NO_ROOM}: its process died, most likely of this") from None

    def close(self) -> None:
        """End the child; the next call starts another."""
        if self.pool is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.pool.shutdown()
            self.pool = None


def _start(threads: int, cap: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    if sys.platform == "linux":
        # Private memory only: torch's CUDA libraries alone map gigabytes that nobody touches.
        resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
        Path("/proc/self/oom_score_adj").write_text("1000")
    torch.set_num_threads(threads)


def _guarded(function: Callable, *args: Any) -> Any:
    try:
        return function(*args)
    except Skipped:
        raise
    except Exception as error:  # whatever a peer raises is the answer, by name
        kind = "missing" if isinstance(error, Missing) else type(error).__name__
        if isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY):
            kind = NO_ROOM
        raise Skipped(f"{kind}: {error}".splitlines()[0]) from None


def measure(
    family: Family,
    worker: Worker,
    shape: Shape,
    backward: bool,
    limit: float,
    budget: float,
    too_slow: dict[tuple[str, bool], Shape],
) -> dict[str, dict]:
    """Measure the sides of a family at one shape, by turns, so that noise hits all of them.

    Args:
        family: the sides.
        worker: where they run.
        shape: one of the family's.
        backward: with gradients.
        limit: seconds that one run of a side may take.
        budget: seconds of runs of each side.
        too_slow: (side, backward) -> shape of less work where it ran over the limit, so that it is
            not tried again. Those that run over it at this shape are added.

    Returns:
        side -> {"seconds": the median, "runs", "bytes"} or {"skipped": why}; only our own side
        if that is skipped, since the others are compared with it.
    """
    found: dict[str, dict] = {}
    for side in family.sides:
        try:
            if known := too_slow.get((side, backward)):
                raise Skipped(f"{SLOW}: not tried, as it is at {known}")
            # Making the inputs, the warm-up and the check take time beside the run.
            found[side] = worker.call(family.trial, side, shape, backward, limit=limit * 1.2 + 5)
            if found[side]["seconds"] > limit:
                raise Skipped(f"{SLOW}: more than {limit:g} s for one run")
        except Skipped as skipped:
            found[side] = {"skipped": str(skipped)}
            if str(skipped).startswith(SLOW):
                too_slow.setdefault((side, backward), shape)
            if len(found) == 1:
                return found
    rounds: dict[str, list[Measurement]] = {
        side: [] for side, one in found.items() if one.get("seconds", LONG) < LONG
    }
    for side in [*rounds] * ROUNDS:
        if "skipped" in found[side]:
            continue
        arguments = (side, shape, backward, budget / ROUNDS)
        try:
            one = worker.call(family.time, *arguments, limit=60 + budget + 3 * LONG)
        except Skipped as skipped:
            found[side] = {"skipped": str(skipped)}
            continue
        rounds[side].append(one)
        [merged] = Measurement.merge(rounds[side])
        found[side] |= {"seconds": merged.median, "runs": len(merged.times)}
    return found
