"""Tables of what was measured, for the screen and for docs/benchmarks.md, and its plot."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from tabulate import tabulate
from torch.utils.benchmark import select_unit, trim_sigfig
from tqdm import tqdm

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


def quantity(what: str, side: dict) -> str:
    """Write the "seconds" or "bytes" of a side with three digits, or why it has none."""
    value = side.get(what)
    if value is None:
        return side.get("skipped", "-").partition(":")[0]
    if what == "bytes":
        return tqdm.format_sizeof(value, "B")
    unit, factor = select_unit(value)
    once = " (one run)" if side["runs"] == 1 else ""
    return f"{trim_sigfig(value / factor, 3):g} {unit}{once}"


def table(cells: list[dict], what: str) -> str:
    """Write "seconds" or "bytes" of one family's cells in Markdown, with ratios."""
    ours, *peers = cells[0]["sides"]
    better = "faster" if what == "seconds" else "smaller"
    rows = []
    for cell in cells:
        sides = cell["sides"]
        own, target = sides[ours][what], cell["target"]
        figures = [(sides[peer][what], peer) for peer in peers if sides[peer].get(what)]
        best, ratio = "-", "no peer"
        if own and figures:
            value, best = min(figures)
            ratio = f"{trim_sigfig(value / own, 3):g} x"
            if what == "seconds" and target:
                ratio += f" (target {target:g}: {'yes' if value / own >= target else 'no'})"
        rows.append([cell["name"], *(quantity(what, one) for one in sides.values()), best, ratio])
    headers = ["", ours, *peers, "best peer", f"ours is {better} by"]
    align = ["left", *["right"] * (len(headers) - 1)]
    return tabulate(rows, headers, "pipe", colalign=align, disable_numparse=True)


def tables(data: dict) -> Iterator[str]:
    """Yield times and peak memory of each family of a part, with ratios and what was left out."""
    for title in dict.fromkeys(cell["title"] for cell in data["cells"]):
        cells = [cell for cell in data["cells"] if cell["title"] == title]
        yield f"**{title}**"
        yield table(cells, "seconds")
        for cell in cells:
            for side, one in cell["sides"].items():
                if "skipped" in one:
                    yield f"{cell['name']}: {side} left out: {one['skipped']}."
        yield f"**{title}: peak memory**"
        yield table(cells, "bytes")
    yield from (f"Failed: {failure}." for failure in data["failures"])


def write_docs(folder: Path, docs: Path, parts: Sequence[str]) -> list[Path]:
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
        if passes := [cell for cell in data["cells"] if cell["family"].endswith(" inference")]:
            written.append(plot(passes, docs / SVG))
            page += [f"![time and memory over the length of the audio]({SVG})", ""]
        page += [f"{each}\n" for each in tables(data)]
    if len(page) == 1:
        raise UserError(f"{folder}: no measurements; `make bench` makes them")
    with atomic_write(written[0]) as stream:
        stream.write("\n".join(page).rstrip() + "\n")
    return written


def plot(cells: list[dict], path: Path) -> Path:
    """Plot time and memory of passes over the audio's length, log-log; return the path."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mambaasr"  # the same file from the same figures
    from matplotlib import pyplot

    families = list(dict.fromkeys(cell["family"] for cell in cells))
    figure, grid = pyplot.subplots(
        2, len(families), figsize=(11, 6.4), squeeze=False, layout="constrained"
    )
    for column, family in enumerate(families):
        rows = [cell for cell in cells if cell["family"] == family]
        lengths = [cell["shape"][1] for cell in rows]
        for axes, what in zip(grid[:, column], ("seconds", "bytes"), strict=True):
            for label, marker in zip(rows[0]["sides"], "os^", strict=True):
                values = [cell["sides"][label].get(what) or math.nan for cell in rows]
                axes.loglog(lengths, values, marker=marker, label=label)
            axes.set_xticks(lengths, lengths)
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        grid[0][column].set_title(family)
        grid[1][column].set_xlabel("audio [s]")
    grid[0][0].legend()
    grid[0][0].set_ylabel("time [s]")
    grid[1][0].set_ylabel("peak memory [bytes]")
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return path
