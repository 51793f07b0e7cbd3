"""Turns the cells of each part into tables."""

from bench import conv, mixer, scan, ssd
from bench.compare import best_peer
from bench.table import Table, duration, memory, times

PASSES = {False: "forward", True: "forward + backward"}


def shape_of(cell):
    """The shape that a cell was measured at."""
    return tuple(cell["shape"])


def comparison(title, module, cells, targets=None):
    """Times and ratios of a family."""
    ours = next(iter(module.SIDES))
    rows, notes = [], []
    for cell in cells:
        shape, backward = shape_of(cell), cell["backward"]
        sides = cell["sides"]
        best = best_peer(sides, ours)
        wanted = targets.get(shape, (None, None))[backward] if targets else None
        ratio = "no peer" if best is None else times(best[1] / sides[ours]["median"], wanted)
        rows.append(
            [
                f"{module.describe(shape)} {PASSES[backward]}",
                *(one_time(sides[side]) if side in sides else "-" for side in module.SIDES),
                best[0] if best else "-",
                ratio,
            ]
        )
        for side, one in sides.items():
            if "skipped" in one:
                notes.append(f"{rows[-1][0]}: {side} left out: {one['skipped']}.")
    return Table(title, ["", *module.SIDES, "best peer", "ours is faster by"], rows, notes)


def one_time(side):
    """The median of a side, or why there is none."""
    if "skipped" in side:
        kinds = {"memory": "out of memory", "limit": "over the limit"}
        return kinds.get(side["kind"], side["kind"])
    return duration(side["median"]) + (" (one run)" if side["runs"] == 1 else "")


def peak(title, module, cells):
    """Peak memory of forward + backward of a family."""
    ours = next(iter(module.SIDES))
    rows = []
    for cell in cells:
        if not cell["backward"]:
            continue
        sides = cell["sides"]
        sizes = [one["bytes"] for s, one in sides.items() if s != ours and one.get("bytes")]
        own = sides[ours]["bytes"]
        ratio = times(min(sizes) / own) if sizes and own else "-"
        cells_ = [
            memory(one["bytes"]) if "bytes" in one else one_time(one) for one in sides.values()
        ]
        rows.append([module.describe(shape_of(cell)), *cells_, ratio])
    note = "Largest resident memory while it runs, beyond the inputs, in a child process."
    return Table(title, ["", *module.SIDES, "ours is smaller by"], rows, [note])


def scan_tables(cells):
    """Tables of the part scan."""
    shape = "(batch, frames, channels, states)"
    for module, name, targets in (
        (scan, f"Selective scan, {shape}", scan.TARGETS),
        (mixer, f"Whole Mamba mixer, {shape}, same weights", None),
    ):
        chosen = [cell for cell in cells.values() if cell["family"] == module.__name__]
        if chosen:
            yield comparison(name, module, chosen, targets)
            yield peak(f"{name}: peak memory of forward + backward", module, chosen)


def floor_tables(cells):
    """Tables of the part floor."""
    rows = []
    for cell in cells.values():
        rows.append(
            [
                scan.describe(shape_of(cell)),
                duration(cell["forward"]["median"]),
                duration(cell["floor"]["median"]),
                f"{cell['ns_per_vector']:.2f}",
                times(cell["forward_over_floor"], 1.5, at_most=True),
                times(cell["forward_over_floor_all"]),
                duration(cell["forward_threads"]["median"]),
                duration(cell["torch_exp"]["median"]),
                times(cell["forward_over_torch_exp"], 0.6, at_most=True),
            ]
        )
    threads = max(cell["threads"] for cell in cells.values())
    headers = [
        "(batch, frames, channels, states)",
        "forward, 1 thread",
        "its exponentials alone",
        "ns a vector",
        "forward / exponentials",
        "with those of softplus and gate",
        f"forward, {threads} threads",
        f"torch.exp, {threads} threads",
        "forward / torch.exp",
    ]
    note = "Exponentials alone: vectorised, from the first-level cache (tools/bench/floor.cpp)."
    yield Table("The forward pass against the machine", headers, rows, [note])


def scaling_tables(cells):
    """Tables of the part scaling."""
    rows, threads = [], 0
    for cell in cells.values():
        threads = cell["threads"]
        rows.append(
            [
                f"{scan.describe(shape_of(cell))} {PASSES[cell['backward']]}",
                duration(cell["one"]["median"]),
                duration(cell["more"]["median"]),
                times(cell["speedup"], 1.8 if threads == 2 else None),
                f"{cell['ns_per_frame']:.0f}",
            ]
        )
    headers = ["", "1 thread", f"{threads} threads", "speed-up", "ns a frame"]
    note = "At 25 frames a second 375 frames are 15 s of audio, 15000 are 10 min, 90000 an hour."
    yield Table("Selective scan over time and threads", headers, rows, [note])


def conv_tables(cells):
    """Tables of the part conv."""
    title = f"Causal depthwise convolution, width {conv.WIDTH}, (batch, frames, channels)"
    yield comparison(title, conv, list(cells.values()))
    yield peak(f"{title}: peak memory of forward + backward", conv, list(cells.values()))


def ssd_tables(cells):
    """Tables of the part ssd."""
    title = "Mamba-2 (SSD), (batch, frames, heads, channels a head, states)"
    yield comparison(title, ssd, list(cells.values()))
    yield peak(f"{title}: peak memory of forward + backward", ssd, list(cells.values()))


# A first measurement of ESPnet's Conformer, 20.9 M, before this bench was there: what to beat.
# (mode, batch, seconds of audio) -> (time, bytes or None)
EARLIER = {
    ("inference", 1, 5): (0.066, None),
    ("inference", 1, 15): (0.18, None),
    ("inference", 1, 60): (2.2, None),
    ("inference", 1, 300): (75.0, 16.4e9),
    ("training", 4, 15): (2.5, None),
}
# (mode, batch, seconds) -> times faster than the best other encoder
MODEL_TARGETS = {
    ("inference", 1, 5): 1,
    ("inference", 1, 15): 1,
    ("inference", 1, 60): 3,
    ("inference", 1, 300): 15,
    ("inference", 1, 600): 1,
    ("training", 4, 15): 1,
}


def model_tables(cells):
    """Tables of the part models."""
    for mode, name in (("inference", "One inference pass"), ("training", "One training step")):
        chosen = [cell for cell in cells.values() if cell["mode"] == mode]
        if chosen:
            yield _model_table(name, chosen)


def _model_table(name, cells):
    rows, notes = [], []
    for cell in cells:
        sides, key = cell["sides"], (cell["mode"], cell["batch"], cell["seconds"])
        ours = sides["conmamba"]
        ran = [one for one in sides.values() if one is not ours and "median" in one]
        best = min((one["median"] for one in ran), default=None)
        least = min((one["bytes"] for one in ran if one["bytes"]), default=None)
        row = [f"{cell['size']}, {cell['batch']} x {cell['seconds']} s"]
        for one in sides.values():
            if "skipped" in one:
                row.append(one["skipped"])
            else:
                row.append(f"{one_time(one)}, {memory(one['bytes'])}")
        if "skipped" in ours:
            row += ["-", "-"]
        elif best is None:
            row += ["only ours fits", "only ours fits"]
        else:
            row.append(times(best / ours["median"], MODEL_TARGETS.get(key)))
            row.append(times(least / ours["bytes"], 10 if key[1:] == (1, 300) else None))
        rows.append(row)
        if cell["size"] == "21M" and key in EARLIER:
            seconds, size = EARLIER[key]
            extra = f", {memory(size)}" if size else ""
            notes.append(
                f"{row[0]}: seen earlier for the conformer, not in this run: "
                f"{duration(seconds)}{extra}."
            )
    sizes = sorted(
        {
            (cell["size"], ", ".join(_count(cell, label) for label in cell["sides"]))
            for cell in cells
            if all("parameters" in one for one in cell["sides"].values())
        }
    )
    notes += [f"Parameters of the encoders, {size}: {words}." for size, words in sizes]
    notes.append(
        "Medians; the memory is the process's peak beyond what it needs without a model: weights, "
        "activations, and in training gradients and Adam's state. A training step is forward, "
        "CTC loss, backward and Adam."
    )
    headers = ["size, batch x audio", *cells[0]["sides"], "ours is faster by", "smaller by"]
    return Table(f"{name} of whole encoders", headers, rows, notes)


def _count(cell, label):
    return f"{label} {cell['sides'][label]['parameters'] / 1e6:.2f} M"


TABLES = {
    "scan": scan_tables,
    "floor": floor_tables,
    "scaling": scaling_tables,
    "conv": conv_tables,
    "ssd": ssd_tables,
    "models": model_tables,
}
