"""docs/benchmarks.md and docs/encoder_speed.svg: nothing but what the JSON files hold."""

from pathlib import Path

from bench.models import LABELS
from bench.report import TABLES
from bench.store import read
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

INTRODUCTION = """# Benchmarks

Written by `python tools/bench/run.py docs` from what `make bench` measured; not edited by hand.
All sides of a comparison run with the same threads, in turns, in the same process where they are
small and in processes that take turns where they are whole models; figures are medians. Where the
sides compute the same thing (all but the whole encoders), a side's output and gradients are
compared with ours before it is timed: one that disagrees is refused. A peer that needs longer than
the limit for one run, or more memory than 90 % of what was free, is left out and named.

For comparison, published: the authors of Mamba report their CUDA scan 20 to 40 times faster than a
standard scan in PyTorch (arXiv 2312.00752, section 4.5).
"""
SVG = "encoder_speed.svg"


def write(folder, docs):
    """Write the page and the plot.

    Args:
        folder: of the JSON files.
        docs: where to.

    Returns:
        the paths written.

    Raises:
        UserError: there is nothing to write.
    """
    found = {part: read(Path(folder) / f"{part}.json") for part in TABLES}
    found = {part: data for part, data in found.items() if data and data["cells"]}
    if not found:
        raise UserError(f"{folder}: no measurements; `make bench` makes them")
    written = []
    page = [INTRODUCTION]
    for part, data in found.items():
        page += [f"## {part}\n", _origin(part, data), ""]
        if part == "models":
            written.append(plot(data["cells"], Path(docs) / SVG))
            page += [f"![time and memory over the length of the audio]({SVG})", ""]
        for table in TABLES[part](data["cells"]):
            page += [table.markdown(), ""]
    path = Path(docs) / "benchmarks.md"
    with atomic_write(path) as stream:
        stream.write("\n".join(page).rstrip() + "\n")
    return [path, *written]


def _origin(part, data):
    header = "; ".join(f"{name} {value}" for name, value in data["header"].items())
    return f"`python tools/bench/run.py {part}`: {header}."


def plot(cells, path):
    """Plot time and memory of an inference pass over the audio's length, log-log; the path."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "mambaasr"  # the same file from the same figures
    from matplotlib import pyplot

    cells = [cell for cell in cells.values() if cell["mode"] == "inference"]
    sizes = list(dict.fromkeys(cell["size"] for cell in cells))
    figure, grid = pyplot.subplots(
        2, len(sizes), figsize=(1 + 3.4 * len(sizes), 6.4), squeeze=False, layout="constrained"
    )
    for column, size in enumerate(sizes):
        rows = [cell for cell in cells if cell["size"] == size]
        for row, (field, factor) in enumerate((("median", 1), ("bytes", 1e-9))):
            axes = grid[row][column]
            for label, marker in zip(LABELS, "os^", strict=True):
                points = [
                    (cell["seconds"], cell["sides"][label][field] * factor)
                    for cell in rows
                    if cell["sides"].get(label, {}).get(field)
                ]
                missing = [c for c in rows if "skipped" in c["sides"].get(label, {})]
                name = label
                if missing:
                    first = missing[0]
                    name += f" ({first['seconds']} s: {first['sides'][label]['skipped']})"
                if points:
                    axes.loglog(*zip(*points, strict=True), marker=marker, label=name)
            ticks = [cell["seconds"] for cell in rows]
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.grid(alpha=0.3)
        grid[0][column].set_title(f"{size} parameters")
        grid[0][column].legend(fontsize=6, loc="lower right")
        grid[1][column].set_xlabel("audio [s]")
    grid[0][0].set_ylabel("one inference pass [s]")
    grid[1][0].set_ylabel("peak memory [GB]")
    with atomic_write(path, "wb") as stream:
        figure.savefig(stream, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return path
