"""Tables of what was measured, for the screen and for docs/benchmarks.md, and its plot."""

import json
from collections.abc import Iterator
from pathlib import Path

from tabulate import tabulate

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

INTRODUCTION = """# Benchmarks

Written by `python tools/bench/run.py docs` from what `make bench` measured; not edited by hand.
All sides of a comparison run with the same threads, in turns, in one child process; figures are
medians. Where the sides compute the same thing (all but whole encoders), a side's
output and gradients are compared with ours before it is timed: one that disagrees is refused. A
peer that needs longer than the limit for one run, or more memory than 90 % of what was free, is
left out and named. The memory is the largest resident memory while it runs, beyond the inputs; of
encoders it is that of weights and, in training, of gradients and Adam's state as well. A training
step is forward, CTC loss, backward and Adam.

For comparison, published: the authors of Mamba report their CUDA scan 20 to 40 times faster than a
standard scan in PyTorch (arXiv 2312.00752, section 4.5).
"""
SVG = "encoder_speed.svg"


def duration(seconds: float) -> str:
    """Write a time with three digits."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e6:.3g} µs"


def memory(size: float) -> str:
    """Write a number of bytes."""
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def ratio(value: float, target: float | None = None) -> str:
    """Write a ratio, with its target and whether it is met."""
    digits = f"{value:.2f} x" if value < 10 else f"{value:.0f} x"
    met = "" if target is None else f" (target {target:.2g}: {'yes' if value >= target else 'no'})"
    return digits + met


def table(cells: list[dict], what: str) -> tuple[list[str], list[list[str]], list[str]]:
    """Lay out "seconds" or "bytes" of one family's cells: headers, rows, and what was left out."""
    ours, *peers = cells[0]["sides"]
    rows, notes = [], []
    for cell in cells:
        row = [cell["name"]]
        for side, one in cell["sides"].items():
            if "skipped" in one:
                kinds = {"memory": "out of memory", "limit": "over the limit"}
                row.append(kinds.get(one["kind"], one["kind"]))
                notes.append(f"{cell['name']}: {side} left out: {one['skipped']}.")
            elif one[what] is None:
                row.append("-")
            elif what == "bytes":
                row.append(memory(one["bytes"]))
            else:
                row.append(duration(one["seconds"]) + " (one run)" * (one["runs"] == 1))
        own = cell["sides"][ours][what]
        figures = [(cell["sides"][peer].get(what), peer) for peer in peers]
        best = min(((value, peer) for value, peer in figures if value), default=None)
        if own and best:
            target = cell["target"] if what == "seconds" else None
            row += [best[1], ratio(best[0] / own, target)]
        else:
            row += ["-", "no peer"]
        rows.append(row)
    better = "ours is faster by" if what == "seconds" else "ours is smaller by"
    return ["", ours, *peers, "best peer", better], rows, notes


def tables(cells: list[dict], markdown: bool = False) -> Iterator[str]:
    """Yield times and peak memory of each family among the cells, with ratios."""
    for title in dict.fromkeys(cell["title"] for cell in cells):
        chosen = [cell for cell in cells if cell["title"] == title]
        for what, suffix in (("seconds", ""), ("bytes", ": peak memory")):
            headers, rows, notes = table(chosen, what)
            body = tabulate(
                rows,
                headers,
                "pipe" if markdown else "simple",
                colalign=["left", *["right"] * (len(headers) - 1)],
                disable_numparse=True,
            )
            heading = f"**{title}{suffix}**\n" if markdown else title + suffix
            shown = notes if what == "seconds" else []
            yield "\n".join([heading, body, *(f"\n{note}" for note in shown)])


def write_docs(folder: Path, docs: Path, parts: list[str]) -> list[Path]:
    """Write benchmarks.md and the plot from the JSON files of a folder; return their paths.

    Raises:
        UserError: nothing was measured.
    """
    page, written = [INTRODUCTION], [docs / "benchmarks.md"]
    for part in parts:
        if not (folder / f"{part}.json").exists():
            continue
        data = json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))
        header = "; ".join(f"{name} {value}" for name, value in data["header"].items())
        page += [f"## {part}\n", f"`python tools/bench/run.py {part}`: {header}.", ""]
        if part == "models":
            written.append(plot(data["cells"], docs / SVG))
            page += [f"![time and memory over the length of the audio]({SVG})", ""]
        page += [f"{each}\n" for each in tables(data["cells"], markdown=True)]
    if len(page) == 1:
        raise UserError(f"{folder}: no measurements; `make bench` makes them")
    with atomic_write(written[0]) as stream:
        stream.write("\n".join(page).rstrip() + "\n")
    return written


def plot(cells: list[dict], path: Path) -> Path:
    """Plot time and memory of an inference pass over the audio's length, log-log; the path."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mambaasr"  # the same file from the same figures
    from matplotlib import pyplot

    cells = [cell for cell in cells if cell["family"].endswith("inference")]
    families = list(dict.fromkeys(cell["family"] for cell in cells))
    figure, grid = pyplot.subplots(
        2, len(families), figsize=(1 + 3.4 * len(families), 6.4), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, family in enumerate(families):
        rows = [cell for cell in cells if cell["family"] == family]
        for axes, what, factor in zip(
            grid[:, column], ("seconds", "bytes"), (1, 1e-9), strict=True
        ):
            for label, marker in zip(rows[0]["sides"], "os^", strict=True):
                sides = [(cell["shape"][1], cell["sides"][label]) for cell in rows]
                points = [(at, one[what] * factor) for at, one in sides if one.get(what)]
                missing = [f" ({at} s: {one['skipped']})" for at, one in sides if "skipped" in one]
                if points:
                    name = label + "".join(missing[:1])
                    axes.loglog(*zip(*points, strict=True), marker=marker, label=name)
            ticks = [cell["shape"][1] for cell in rows]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        grid[0][column].set_title(family)
        grid[0][column].legend(fontsize=6, loc="lower right")
        grid[1][column].set_xlabel("audio [s]")
    grid[0][0].set_ylabel("one inference pass [s]")
    grid[1][0].set_ylabel("peak memory [GB]")
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return path
