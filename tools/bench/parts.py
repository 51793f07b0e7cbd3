"""What each part measures: its cells, in the order of their cost."""

import contextlib
from dataclasses import dataclass

from bench import conv, floor, mixer, models, scaling, scan, ssd
from bench.compare import Comparison
from bench.worker import Failed, Worker

# Minutes on two cores.
ESTIMATES = {"scan": 12, "floor": 1, "scaling": 1, "conv": 1, "ssd": 2, "models": 20}


@dataclass
class Settings:
    """What the user may choose.

    Attributes:
        threads: of every side.
        limit: seconds that one run of a peer may take.
        model_limit: the same for a whole encoder.
        budget: seconds of rounds a cell.
        shapes: of the scan; None for the usual ones.
        sizes: of the encoders.
        quick: tiny shapes, a few rounds.
    """

    threads: int
    limit: float = 60
    model_limit: float = 240
    budget: float = 6
    shapes: tuple | None = None
    sizes: tuple = ("10M", "21M", "30M")
    quick: bool = False


def comparison_cells(module, shapes, settings, sides=None):
    """Yield (key, function) of forward and forward + backward at each shape of a family."""
    comparison = Comparison(
        module.__name__,
        sides=sides,
        threads=settings.threads,
        limit=settings.limit,
        budget=settings.budget,
    )

    def cell(shape, backward):
        sides = comparison.cell(shape, backward)
        return {"family": module.__name__, "shape": shape, "backward": backward, "sides": sides}

    with contextlib.closing(comparison):
        # What takes least first: where a peer gives up it need not be tried with more.
        for shape in sorted(shapes, key=lambda shape: module.work(shape)[-1]):
            for backward in (False, True):
                key = f"{module.__name__} {shape} {'backward' if backward else 'forward'}"
                yield key, lambda shape=shape, backward=backward: cell(shape, backward)


def _shapes(settings, module, quick):
    if module in (scan, mixer, floor) and settings.shapes:
        return settings.shapes
    return quick if settings.quick else module.SHAPES


def scan_cells(settings):
    """Cells of the part scan: the scan alone, then whole mixers."""
    for module in (scan, mixer):
        shapes = _shapes(settings, module, ((2, 20, 32, 8),))
        yield from comparison_cells(module, shapes, settings)


def conv_cells(settings):
    """Cells of the part conv."""
    yield from comparison_cells(conv, _shapes(settings, conv, ((2, 20, 32),)), settings)


def ssd_cells(settings):
    """Cells of the part ssd."""
    yield from comparison_cells(ssd, _shapes(settings, ssd, ((2, 20, 2, 8, 16),)), settings)


def floor_cells(settings):
    """Cells of the part floor."""
    quick = ((2, 20, 32, 8),) if settings.quick else scan.SHAPES
    with Worker(settings.threads) as worker:
        for shape in settings.shapes or quick:

            def cell(shape=shape):
                found = worker.call(
                    floor.cell, shape, settings.threads, settings.budget / 2, limit=300
                )
                return {"shape": shape, **found}

            yield f"floor {shape}", cell


def scaling_cells(settings):
    """Cells of the part scaling."""
    lengths = (50, 100) if settings.quick else scaling.LENGTHS
    width = (32, 8) if settings.quick else (512, 16)
    shapes = [(1, length, *width) for length in lengths]
    shapes += [] if settings.quick else [s for s in scan.SHAPES if s not in shapes]
    with Worker(settings.threads) as worker:
        for shape in settings.shapes or shapes:
            for backward in (False, True):

                def cell(shape=shape, backward=backward):
                    found = worker.call(
                        scaling.cell, shape, backward, settings.threads, settings.budget, limit=600
                    )
                    return {"shape": shape, "backward": backward, **found}

                yield f"scaling {shape} {'backward' if backward else 'forward'}", cell


def model_cells(settings):
    """Cells of the part models."""
    plans = {"inference": models.INFERENCE, "training": models.TRAINING}
    if settings.quick:
        plans = {"inference": ((1, 1), (1, 2)), "training": ((2, 1),)}
    for size in ("tiny",) if settings.quick else settings.sizes:
        for mode, plan in plans.items():
            # New processes for training: what it leaves behind is no part of inference.
            race = models.Race(
                size, settings.threads, settings.model_limit, settings.budget, settings.quick
            )
            with contextlib.closing(race):
                for batch, seconds in plan:

                    def cell(mode=mode, batch=batch, seconds=seconds, size=size, race=race):
                        sides = race.cell(mode, batch, seconds)
                        names = dict(size=size, mode=mode, batch=batch, seconds=seconds)
                        return {**names, "sides": sides}

                    yield f"{size} {mode} {batch} x {seconds} s", cell


CELLS = {
    "scan": scan_cells,
    "floor": floor_cells,
    "scaling": scaling_cells,
    "conv": conv_cells,
    "ssd": ssd_cells,
    "models": model_cells,
}


def measure(part, settings, store, progress=print):
    """Measure what is not in the store yet, cell by cell.

    Returns:
        messages of cells that failed.
    """
    failures = []
    for key, function in CELLS[part](settings):
        if key in store.cells:
            progress(f"{key}: there already")
            continue
        progress(key)
        try:
            store.add(key, function())
        except Failed as failure:
            failures.append(f"{key}: {failure}")
    return failures
