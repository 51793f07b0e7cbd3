"""Comparisons of sides that compute the same thing: agreement, time, peak memory.

They run in a child process: a side may take too long, or too much memory, or crash.
"""

import contextlib
import ctypes
import functools
import gc
import math
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
# torch's allocator, C++'s, and oneDNN's
NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a memory", "out of memory")


class Skipped(Exception):
    """A side has no figure: its ``kind`` (memory, limit, missing, disagrees, error) and ``why``."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind, why)
        self.kind, self.why = kind, why


@dataclass
class Case:
    """One side's computation on the inputs of a shape.

    Attributes:
        forward: callable without arguments that returns the output.
        leaves: tensors to take gradients of, in the same order and logical shape on each side.
        step: what runs in the place of forward and gradients: a whole training step.
    """

    forward: Callable[[], torch.Tensor]
    leaves: list[torch.Tensor] = field(default_factory=list)
    step: Callable[[], None] | None = None

    def run(self, backward: bool) -> list[torch.Tensor]:
        """Return [output], or [output, gradients ...], or [] of a training step."""
        if not backward:
            with torch.no_grad():
                return [self.forward()]
        if self.step is not None:
            self.step()
            return []
        out = self.forward()
        return [out.detach(), *torch.autograd.grad(out, self.leaves, _gradient(tuple(out.shape)))]


@functools.lru_cache(maxsize=1)
def _gradient(shape: Shape) -> torch.Tensor:
    """Draw a gradient of an output that does not depend on the side."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Family:
    """Sides of a comparison.

    Attributes:
        title: what is computed, and what a shape means.
        sides: name -> function of a shape that makes a :class:`Case`; the first is ours.
        shapes: what to measure.
        quick: a tiny shape, also to warm up with.
        targets: shape -> wanted ratio to the best peer in each mode.
        modes: of False (forward) and True (forward + backward) those to measure.
        alike: whether the sides compute the same, which is then checked; if not, the memory
            includes what a side is made of.
        patience: factor of the limit for one run.
    """

    title: str
    sides: dict[str, Callable[[Shape], Case]]
    shapes: tuple[Shape, ...]
    quick: Shape
    targets: dict[Shape, tuple[float, ...]] = field(default_factory=dict)
    modes: tuple[bool, ...] = (False, True)
    alike: bool = True
    patience: int = 1

    def check(self, side: str, shape: Shape, backward: bool, results: list[torch.Tensor]) -> None:
        """Raise Skipped unless an output and its gradients are those of our side."""
        expected = next(iter(self.sides.values()))(shape).run(backward)
        for index, (want, have) in enumerate(zip(expected, results, strict=True)):
            error = float((want - have).abs().max()) / (float(want.abs().max()) or 1.0)
            if not error <= TOLERANCE:  # NaN counts
                what = f"gradient {index}" if index else "output"
                raise Skipped("disagrees", f"{side} does not agree with ours: {what}, {error:.1e}")

    def trial(self, side: str, shape: Shape, backward: bool) -> dict:
        """Run a side once: {"seconds", "runs", "bytes" of peak memory}; its results are checked."""
        # The first call of anything loads code, which is neither its time nor its memory.
        self.sides[side](self.quick).run(backward)
        before = resident()
        case = self.sides[side](shape)
        before = resident() if self.alike else before
        start = time.perf_counter()
        results = case.run(backward)
        elapsed = time.perf_counter() - start
        peak = peak_memory()
        if self.alike:
            self.check(side, shape, backward, results)
        size = None if before is None else max(0, peak - before)
        return {"seconds": elapsed, "runs": 1, "bytes": size}

    def in_turns(self, sides: list[str], shape: Shape, backward: bool, budget: float) -> dict:
        """Time sides by turns (A B A B ...), so that a noisy machine hits all of them.

        Returns:
            side -> {"seconds": the median, "runs"} of at least ``budget`` seconds.
        """
        timers = []
        for side in sides:
            run = functools.partial(self.sides[side](shape).run, backward)
            threads = torch.get_num_threads()
            timers.append(Timer("run()", globals={"run": run}, num_threads=threads, label=side))
        gc.collect()
        rounds = [
            timer.blocked_autorange(min_run_time=budget / ROUNDS)
            for _ in range(ROUNDS)
            for timer in timers
        ]
        return {
            one.task_spec.label: {"seconds": one.median, "runs": len(one.times)}
            for one in Measurement.merge(rounds)
        }


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
            raise Skipped("limit", f"more than {limit:g} s") from None
        except BrokenProcessPool:
            # The kernel's out-of-memory killer, or an allocation that C++ could not survive.
            self.close()
            raise Skipped("memory", "its process died, most likely out of memory") from None

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
    except Missing as error:
        raise Skipped("missing", str(error)) from None
    except Exception as error:  # whatever a peer raises is the answer, by name
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        if isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY):
            raise Skipped("memory", "out of memory") from None
        raise Skipped("error", text) from error


class Comparison:
    """The cells of one family.

    Args:
        load: picklable function that returns the family, in the child process too.
        worker: where its sides run.
        limit: seconds that one run may take.
        budget: seconds of runs of each side.
    """

    def __init__(
        self, load: Callable[[], Family], worker: Worker, limit: float, budget: float
    ) -> None:
        self.load, self.family, self.worker = load, load(), worker
        self.limit, self.budget = limit * self.family.patience, budget
        self.given_up: dict[tuple[str, bool], Shape] = {}

    def _trial(self, name: str, shape: Shape, backward: bool) -> dict:
        """Try a side once; where it ran into the limit no larger shape is tried."""
        known = self.given_up.get((name, backward))
        if known and math.prod(shape) >= math.prod(known):
            raise Skipped("limit", f"not tried: more than {self.limit:g} s at {known}")
        try:
            # Making the inputs, the warm-up and the check take time beside the run.
            most = self.limit * 1.2 + 5
            found = self.worker.call(_of, self.load, "trial", name, shape, backward, limit=most)
        except Skipped as skipped:
            if skipped.kind != "limit":
                raise
            found = {"seconds": math.inf}
        if found["seconds"] > self.limit:
            self.given_up[name, backward] = shape
            raise Skipped("limit", f"more than {self.limit:g} s for one run")
        return found

    def cell(self, shape: Shape, backward: bool) -> dict[str, dict]:
        """Measure all sides at one shape.

        Returns:
            side -> {"seconds", "runs", "bytes"} or {"skipped", "kind"}.

        Raises:
            Skipped: our own side does not run.
        """
        found: dict[str, dict] = {}
        for name in self.family.sides:
            try:
                found[name] = self._trial(name, shape, backward)
            except Skipped as skipped:
                if not found:
                    raise
                found[name] = {"skipped": skipped.why, "kind": skipped.kind}
        again = [name for name, one in found.items() if one.get("seconds", LONG) < LONG]
        most = 60 + len(again) * (self.budget + 3 * ROUNDS * LONG)
        arguments = (again, shape, backward, self.budget)
        for name, one in self.worker.call(
            _of, self.load, "in_turns", *arguments, limit=most
        ).items():
            found[name] |= one
        return found


def _of(load: Callable[[], Family], method: str, *args: Any) -> Any:
    return getattr(load(), method)(*args)
