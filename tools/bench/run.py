"""Measure the kernels and encoders beside their peers, and write what was measured.

    python tools/bench/run.py                      everything, then the documents
    python tools/bench/run.py scan --only '(1, 375'
    python tools/bench/run.py --quick              tiny sizes in this process: does all of it run?
    python tools/bench/run.py docs                 docs/benchmarks.md and its plot, from the JSON

Each part's figures are kept in build/bench/<part>.json. All sides of a comparison have the same
threads and take turns.
"""

import argparse
import contextlib
import functools
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    # This folder itself must go: its modules are the package `bench`.
    sys.path[:1] = [str(ROOT / "tools"), str(ROOT)]

SIZES = ("10M", "21M", "30M")
# part -> families
PARTS = {part: [part] for part in ("scan", "mixer", "scaling", "conv", "ssd")}
PARTS["models"] = [f"{size} {mode}" for size in SIZES for mode in ("inference", "training")]


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ", ".join((*PARTS, "docs"))
    parser.add_argument("parts", nargs="*", default=[*PARTS, "docs"], help=f"{names}; default: all")
    parser.add_argument("--only", default="", help="cells whose name has this text: '(8, 500', 21M")
    parser.add_argument("--threads", type=int, help="of each side; default: all usable cores")
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds for one run; encoders have four times that"
    )
    parser.add_argument("--budget", type=float, default=6, help="seconds of runs of a side")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--no_install", action="store_true", help="take the peers that are there")
    parser.add_argument("--folder", type=Path, help="of the JSON; default: build/bench")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where documents go")
    return parser


def make_header(threads: int) -> dict[str, str | int]:
    """What every figure depends on."""
    import psutil
    import torch

    from mambaasr import provenance
    from mambaasr.ops.native import build

    library, reason = build.load()
    return {
        "cpu": provenance.cpu_model(),
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "threads": threads,
        "isa": library.mambaasr_isa().decode() if library else f"none: {reason}",
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": provenance.git_commit() or "not in git",
        "date": provenance.now(),
    }


def family(name: str):
    """Return the :class:`bench.compare.Family` of a name: of kernels, or "10M inference"."""
    from bench import kernels, models

    return kernels.FAMILIES.get(name) or models.families(name.split()[0])[name]


def measure(part: str, args: argparse.Namespace, header: dict) -> tuple[list[dict], list[str]]:
    """Measure a part and write its JSON file after each cell.

    Returns:
        its cells {"family", "title", "name", "shape", "target", "sides"}, and messages of those
        where our own side failed.
    """
    from tqdm import tqdm

    from bench.compare import Comparison, Skipped, Worker
    from mambaasr.files import atomic_write

    cells: list[dict] = []
    failures: list[str] = []
    names = ["tiny inference", "tiny training"] if args.quick and part == "models" else PARTS[part]
    bar = tqdm(names, desc=part, dynamic_ncols=True)
    for name in bar:
        # A process for each family: what one leaves behind is no part of another's memory.
        with contextlib.closing(Worker(args.threads, inline=args.quick)) as worker:
            load = functools.partial(family, name)
            comparison = Comparison(load, worker, args.limit, args.budget)
            found = comparison.family
            for shape in [found.quick] if args.quick else found.shapes:
                for mode, backward in enumerate(found.modes):
                    title = f"{shape}" + (" forward + backward" if backward else " forward")
                    title = f"{shape}" if len(found.modes) == 1 else title
                    if args.only not in f"{name} {title}":
                        continue
                    bar.set_postfix_str(f"{name} {title}")
                    try:
                        sides = comparison.cell(shape, backward)
                    except Skipped as skipped:
                        failures.append(f"{name} {title}: {skipped.kind}: {skipped.why}")
                        continue
                    target = found.targets.get(shape, (None,) * 2)[mode]
                    cell = {"family": name, "title": found.title, "name": title, "shape": shape}
                    cells.append({**cell, "target": target, "sides": sides})
                    with atomic_write(args.folder / f"{part}.json") as stream:
                        json.dump({"header": header, "cells": cells}, stream, indent=1)
    return cells, failures


def main(argv: list[str] | None = None) -> int:
    """Run the parts that were asked for; 1 if a cell failed."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if unknown := set(args.parts) - {*PARTS, "docs"}:
        parser.error(f"unknown parts {', '.join(sorted(unknown))}; known: {', '.join(PARTS)}, docs")
    from bench import peers, report
    from mambaasr.parallel import usable_cores

    args.threads = args.threads or usable_cores()
    args.folder = args.folder or ROOT / "build" / ("bench-quick" if args.quick else "bench")
    args.budget = 0.02 if args.quick else args.budget
    failures: list[str] = []
    if measured := [part for part in PARTS if part in args.parts]:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the child processes
        header = make_header(args.threads)
        print("\n".join(f"{name}: {value}" for name, value in header.items()), flush=True)
        if not args.no_install:
            peers.install()
    for part in measured:
        cells, failed = measure(part, args, header)
        if not cells and not failed:
            print(f"{part}: no cell has {args.only!r} in its name", flush=True)
        print(f"\n== {part} ==")
        for text in report.tables(cells):
            print(f"\n{text}")
        print("".join(f"failed: {failure}\n" for failure in failed), flush=True)
        failures += failed
    # Some cells alone are no page.
    if "docs" in args.parts and not ((args.quick or args.only) and measured):
        for path in report.write_docs(args.folder, args.docs, list(PARTS)):
            print(f"written: {path}")
    return 1 if failures else 0


if __name__ == "__main__":
    from mambaasr.bin import run_main

    run_main(main)
