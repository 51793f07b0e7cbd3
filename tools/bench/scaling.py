"""Time over the length of the audio, and over threads."""

import functools

from bench.measure import in_turns
from bench.scan import ours, scan_case

# 15 s to 10 minutes, then an hour, at 25 frames a second
LENGTHS = (375, 750, 1500, 3750, 7500, 15000, 90000)


def cell(shape, backward, threads, budget):
    """Measure our scan with one thread and with more, in turns; runs in a worker.

    Returns:
        "one" and "more" with their seconds, "speedup", "ns_per_frame" (with ``threads``).
    """
    import torch

    case = scan_case(ours("cpu"), True, shape)

    def run(count):
        torch.set_num_threads(count)
        case.run(backward)

    sides = {"one": functools.partial(run, 1), "more": functools.partial(run, threads)}
    found = in_turns(sides, budget)
    one, more = (found[name]["median"] for name in ("one", "more"))
    return {
        **found,
        "threads": threads,
        "speedup": one / more,
        "ns_per_frame": more / (shape[0] * shape[1]) * 1e9,
    }
