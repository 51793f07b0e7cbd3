"""Times and peak memory of callables in this process."""

import contextlib
import ctypes
import gc
import statistics
import time

SHORT = 0.05  # seconds; a side below runs several times a turn


def seconds(function):
    """Run ``function`` once and return its wall time."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def in_turns(sides, budget, least=3, most=25):
    """Time callables in turns (A B A B ...), so that a noisy machine hits all of them.

    Args:
        sides: name -> callable without arguments.
        budget: seconds after which no further round starts.
        least, most: rounds.

    Returns:
        name -> {"median", "least" (seconds), "runs"}. A side that takes less than
        :data:`SHORT` runs five times a round.
    """
    times = {name: [] for name in sides}
    repeats = {name: 5 if seconds(side) < SHORT else 1 for name, side in sides.items()}
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for done in range(most):
            if done >= least and time.perf_counter() - start > budget:
                break
            for name, side in sides.items():
                times[name] += [seconds(side) for _ in range(repeats[name])]
    finally:
        gc.enable()
    return {name: summary(values) for name, values in times.items()}


def summary(values):
    """Return what is kept of several times."""
    return {"median": statistics.median(values), "least": min(values), "runs": len(values)}


def _status(key):
    with open("/proc/self/status", encoding="ascii") as stream:
        for line in stream:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    raise KeyError(key)


def resident():
    """Bytes of this process in memory, what free lists hold returned first; None off Linux."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        return _status("VmRSS")
    except OSError:
        return None


def peak_memory(function, before=None):
    """Return (result, seconds, bytes) of one run of ``function``.

    Args:
        function: callable without arguments.
        before: the resident memory to count from; by default that at the start.

    Returns:
        the bytes are the largest resident memory while it ran, less ``before``; None where
        the system does not tell.
    """
    now = resident()
    if now is not None:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as stream:
            stream.write("5")  # the high-water mark starts anew
    start = time.perf_counter()
    result = function()
    elapsed = time.perf_counter() - start
    if now is None:
        return result, elapsed, None
    return result, elapsed, max(0, _status("VmHWM") - (now if before is None else before))
