"""Comparisons of sides that compute the same thing: agreement, time, peak memory.

Each runs in a child process, which a side may take too long in, or too much memory, or crash.
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
    """A side has no figure.

    Attributes:
        kind: "memory", "limit", "missing", "disagrees" or "error".
        why: a line for the reader.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(kind, why)
        self.kind, self.why = kind, why

    def __str__(self) -> str:
        return self.why


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
        # Its size does not depend on the side, its values on nothing but its shape.
        grad = _gradient_of_output(tuple(out.shape))
        return [out.detach(), *torch.autograd.grad(out, self.leaves, grad)]


@functools.lru_cache(maxsize=1)
def _gradient_of_output(shape: Shape) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Family:
    """Sides of a comparison.

    Attributes:
        title: what is computed, and what a shape means.
        sides: name -> function of a shape that makes a :class:`Case`; the first is ours.
        shapes: what to measure.
        quick: a tiny shape, also to warm up with.
        targets: shape -> how many times faster than the best peer we mean to be, for each mode.
        modes: of False (forward) and True (forward + backward) those to measure.
        alike: whether the sides compute the same, which is checked then; if not, the memory is
            that of what a side is made of as well.
        patience: what the limit for one run is multiplied with.
    """

    title: str
    sides: dict[str, Callable[[Shape], Case]]
    shapes: tuple[Shape, ...]
    quick: Shape
    targets: dict[Shape, tuple[float, ...]] = field(default_factory=dict)
    modes: tuple[bool, ...] = (False, True)
    alike: bool = True
    patience: int = 1


def in_turns(sides: dict[str, Callable[[], Any]], budget: float) -> dict[str, dict]:
    """Time sides by turns (A B A B ...), so that a noisy machine hits all of them.

    Args:
        sides: name -> callable without arguments.
        budget: seconds that each side runs, and a little more.

    Returns:
        name -> {"seconds": the median, "runs"}.
    """
    gc.collect()
    threads = torch.get_num_threads()
    timers = [
        Timer("side()", globals={"side": side}, num_threads=threads, description=name)
        for name, side in sides.items()
    ]
    found = [
        timer.blocked_autorange(min_run_time=budget / ROUNDS)
        for _ in range(ROUNDS)
        for timer in timers
    ]
    return {
        one.task_spec.description: {"seconds": one.median, "runs": len(one.times)}
        for one in Measurement.merge(found)
    }


def resident() -> int | None:
    """Bytes of this process in memory, what free lists hold returned first; None off Linux."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return psutil.Process().memory_info().rss if sys.platform == "linux" else None


def peak_memory(function: Callable[[], Any], before: int | None = None) -> tuple[Any, float, Any]:
    """Return (result, seconds, bytes) of one run of ``function``.

    The bytes are the largest resident memory while it ran, less ``before`` (by default that at
    the start); None where the system does not tell.
    """
    now = resident()
    if now is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    start = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - start
    if now is None:
        return result, elapsed, None
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+)", status)[1]) * 1024
    return result, elapsed, max(0, peak - (now if before is None else before))


def check(side: str, results: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    """Raise Skipped unless an output and its gradients are the expected ones."""
    for index, (want, have) in enumerate(zip(expected, results, strict=True)):
        error = float((want - have).abs().max()) / (float(want.abs().max()) or 1.0)
        if not error <= TOLERANCE:  # NaN counts
            what = f"gradient {index}" if index else "output"
            raise Skipped("disagrees", f"{side} does not agree with ours: {what}, {error:.1e}")


class Worker:
    """A child process that computes with a memory cap, under a time limit, and dies alone.

    Args:
        threads: threads of torch and of the kernels.
        inline: call in this process instead: no cap, no limit, no start.
    """

    def __init__(self, threads: int, inline: bool = False) -> None:
        self.threads, self.inline = threads, inline
        self.pool: ProcessPoolExecutor | None = None
        self.pid = 0

    def call(self, function: Callable, *args: Any, limit: float) -> Any:
        """Return ``function(*args)``.

        Raises:
            Skipped: it failed, needs more than 90 % of the free memory, or more than ``limit``
                seconds.
        """
        if self.inline:
            return guarded(function, *args)
        if self.pool is None:
            cap = int(0.9 * psutil.virtual_memory().available)
            self.pool = ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), _start, (self.threads, cap)
            )
            self.pid = self.pool.submit(os.getpid).result()  # its imports are nobody's time
        try:
            return self.pool.submit(guarded, function, *args).result(limit)
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


def guarded(function: Callable, *args: Any) -> Any:
    """Return ``function(*args)``; whatever it raises becomes Skipped."""
    try:
        return function(*args)
    except Skipped:
        raise
    except Missing as error:
        raise Skipped("missing", str(error)) from None
    except Exception as error:  # whatever a peer raises is the answer, by name
        text = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        memory = isinstance(error, MemoryError) or any(sign in text for sign in NO_MEMORY)
        raise Skipped("memory" if memory else "error", "out of memory" if memory else text) from (
            None if memory else error
        )


def trial(family: Family, side: str, shape: Shape, backward: bool) -> dict:
    """Run a side once: its time, its peak memory, and whether it computes what ours does."""
    # The first call of anything loads code, which is neither its time nor its memory.
    family.sides[side](family.quick).run(backward)
    before = resident()
    case = family.sides[side](shape)
    run = functools.partial(case.run, backward)
    results, elapsed, size = peak_memory(run, None if family.alike else before)
    if family.alike:
        check(side, results, next(iter(family.sides.values()))(shape).run(backward))
    return {"seconds": elapsed, "runs": 1, "bytes": size}


def turns(family: Family, sides: list[str], shape: Shape, backward: bool, budget: float) -> dict:
    """Time sides in turns; see :func:`in_turns`."""
    cases = {side: family.sides[side](shape) for side in sides}
    runs = {side: functools.partial(case.run, backward) for side, case in cases.items()}
    return in_turns(runs, budget)


class Comparison:
    """The cells of one family.

    Args:
        load: picklable function that returns the family, in the child process too.
        worker: where its sides run.
        limit: seconds that one run of a peer may take.
        budget: see :func:`in_turns`.
    """

    def __init__(
        self, load: Callable[[], Family], worker: Worker, limit: float, budget: float
    ) -> None:
        self.load, self.family, self.worker = load, load(), worker
        self.limit, self.budget = limit * self.family.patience, budget
        self.given_up: dict[tuple[str, bool], Shape] = {}

    def side(self, name: str, shape: Shape, backward: bool) -> dict:
        """Try a side once; where it ran into the limit no larger shape is tried."""
        known = self.given_up.get((name, backward))
        if known and math.prod(shape) >= math.prod(known):
            raise Skipped("limit", f"not tried: more than {self.limit:g} s at {known}")
        late = Skipped("limit", f"more than {self.limit:g} s for one run")
        try:
            # Making the inputs, the warm-up and the check take time beside the run.
            most = self.limit * 1.2 + 5
            found = self.worker.call(_of, self.load, trial, name, shape, backward, limit=most)
            if found["seconds"] > self.limit:
                raise late
        except Skipped as skipped:
            if skipped.kind != "limit":
                raise
            self.given_up[name, backward] = shape
            raise late from None
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
                found[name] = self.side(name, shape, backward)
            except Skipped as skipped:
                if not found:
                    raise
                found[name] = {"skipped": skipped.why, "kind": skipped.kind}
        again = [name for name, one in found.items() if one.get("seconds", LONG) < LONG]
        if again:
            most = 60 + len(again) * (self.budget + 3 * ROUNDS * LONG)
            times = self.worker.call(
                _of, self.load, turns, again, shape, backward, self.budget, limit=most
            )
            for name, one in times.items():
                found[name] |= one
        return found


def _of(load: Callable[[], Family], function: Callable, *args: Any) -> Any:
    return function(load(), *args)
