"""Compares implementations ("sides") of one computation: same numbers first, then time and memory.

A family is a module with

    SIDES: name -> function(shape) that makes a :class:`Case`; the first is ours
    describe(shape): the shape in words
    work(shape): numbers that grow with whatever a run may cost
    warm_up(shape): a tiny shape of that kind

The functions here that take only plain values run in a :class:`bench.worker.Worker`.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass

from bench.measure import in_turns, peak_memory
from bench.worker import Failed, Refused, Worker

TOLERANCE = 2e-3  # of the largest value; fp32 sums over 15000 frames in different orders


@dataclass
class Case:
    """One side's computation on the inputs of a shape.

    Attributes:
        forward: callable without arguments that returns the output.
        leaves: tensors to take gradients of, in the same order and logical shape on each side.
    """

    forward: Callable
    leaves: list

    def run(self, backward):
        """Return [output], or [output, gradients ...]."""
        import torch

        if not backward:
            with torch.no_grad():
                return [self.forward()]
        out = self.forward()
        # Its size does not depend on the side, its values on nothing but its shape.
        grad = _gradient_of_output(tuple(out.shape))
        return [out.detach(), *torch.autograd.grad(out, self.leaves, grad)]


@functools.lru_cache(maxsize=1)
def _gradient_of_output(shape):
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@functools.lru_cache(maxsize=8)
def make_case(family, side, shape):
    """Make a side's case; kept, so that making it is no part of a measurement."""
    return importlib.import_module(family).SIDES[side](shape)


def check(family, side, shape, backward, results=None):
    """Raise Refused unless a side computes what the first side of the family computes."""
    ours = next(iter(importlib.import_module(family).SIDES))
    expected = make_case(family, ours, shape).run(backward)
    got = make_case(family, side, shape).run(backward) if results is None else results
    for index, (want, have) in enumerate(zip(expected, got, strict=True)):
        scale = float(want.abs().max()) or 1.0
        error = float((want - have).abs().max()) / scale
        if not error <= TOLERANCE:  # NaN counts
            what = f"gradient {index}" if index else "output"
            raise Refused(f"{side} does not agree with {ours}: {what} is off by {error:.1e}")


def trial(family, side, shape, backward):
    """Run a side once: its time, its peak memory, and whether its numbers are right.

    Returns:
        {"seconds", "bytes"}; the bytes (or None) are those beyond the inputs.
    """
    # The first call of anything loads code, which is neither its time nor its memory.
    small = importlib.import_module(family).warm_up(shape)
    make_case(family, side, small).run(backward)
    case = make_case(family, side, shape)
    results, elapsed, size = peak_memory(lambda: case.run(backward))
    check(family, side, shape, backward, results)
    make_case.cache_clear()
    return {"seconds": elapsed, "bytes": size}


def turns(family, sides, shape, backward, budget, least):
    """Time sides in turns; see :func:`bench.measure.in_turns`."""
    make_case.cache_clear()
    cases = {side: make_case(family, side, shape) for side in sides}
    runs = {side: functools.partial(case.run, backward) for side, case in cases.items()}
    return in_turns(runs, budget, least)


class Comparison:
    """Trials and timings of one family, with the peers that gave up remembered.

    Args:
        family: name of the module.
        sides: names of sides; by default all of the family.
        threads: threads of every side.
        limit: seconds that one run of a peer may take.
        budget: seconds for the rounds of one shape and pass.
    """

    def __init__(self, family, *, sides=None, threads, limit, budget):
        self.family, self.limit, self.budget = family, limit, budget
        self.module = importlib.import_module(family)
        self.sides = list(sides or self.module.SIDES)
        self.given_up = {}  # (side, backward) -> shapes
        self.worker = Worker(threads)

    def close(self):
        """End the child process."""
        self.worker.close()

    def try_side(self, side, shape, backward):
        """Return the trial of a side, or {"skipped": why, "kind": see Failed}.

        A peer is not tried where it has at least as much to do, by every measure, as where it
        ran into the limit.
        """
        for where in self.given_up.get((side, backward), ()):
            pairs = zip(self.module.work(shape), self.module.work(where), strict=True)
            if all(here >= there for here, there in pairs):
                words = self.module.describe(where)
                why = f"not tried: more than {self.limit:g} s at {words}, which is less work"
                return {"skipped": why, "kind": "limit"}
        try:
            # Making the inputs, the warm-up and the check take time beside the run.
            found = self.worker.call(
                trial, self.family, side, shape, backward, limit=self.limit * 1.2 + 5
            )
        except Failed as failure:
            if failure.kind != "limit":
                return {"skipped": str(failure), "kind": failure.kind}
            found = {"seconds": float("inf")}
        if found["seconds"] <= self.limit or side == self.sides[0]:
            return found
        self.given_up.setdefault((side, backward), []).append(shape)
        return {"skipped": f"more than {self.limit:g} s for one run", "kind": "limit"}

    def cell(self, shape, backward):
        """Measure all sides at one shape.

        Returns:
            side -> {"seconds", "bytes", "median", "least", "runs"} or {"skipped", "kind"}.

        Raises:
            Failed: our own side does not run.
        """
        ours, *_ = self.sides
        found = {side: self.try_side(side, shape, backward) for side in self.sides}
        if "skipped" in found[ours]:
            raise Failed(found[ours]["kind"], f"{ours}: {found[ours]['skipped']}")
        ran = {side: one["seconds"] for side, one in found.items() if "skipped" not in one}
        # One run tells enough of a peer that is slow beside another.
        fastest = min([seconds for side, seconds in ran.items() if side != ours] or [0])
        timed = [side for side, t in ran.items() if side == ours or t < 5 or t < 2 * fastest]
        limit = 60 + self.budget + 8 * sum(ran[side] for side in timed)
        times = self.worker.call(
            turns, self.family, timed, shape, backward, self.budget, 3, limit=limit
        )
        for side, seconds in ran.items():
            single = {"median": seconds, "least": seconds, "runs": 1}
            found[side] |= times.get(side, single)
        return found


def best_peer(cell, ours):
    """Return (name, median) of the fastest side that is not ours, or None."""
    peers = [
        (one["median"], side) for side, one in cell.items() if side != ours and "median" in one
    ]
    return min(peers)[::-1] if peers else None
