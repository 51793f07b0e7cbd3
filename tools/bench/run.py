"""Measure the kernels and encoders beside their peers, and write what was measured.

    python tools/bench/run.py                      everything, then the documents
    python tools/bench/run.py scan --only '(1, 375'
    python tools/bench/run.py --quick              tiny sizes in this process: does all of it run?
    python tools/bench/run.py docs                 docs/benchmarks.md and its plot, from the JSON

Each part's figures are kept in build/bench/<part>.json; those of --only in build/bench/only, as
some cells alone are no page. All sides of a comparison have the same threads and take turns.
"""

import argparse
import contextlib
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.compare import Family

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    # This folder itself must go: its modules are the package `bench`.
    sys.path[:1] = [str(ROOT / "tools"), str(ROOT)]

PARTS = ("scan", "mixer", "scaling", "conv", "ssd", "ctc_prefix", "models")


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
    """Return what every figure depends on."""
    import psutil

    from mambaasr import provenance
    from mambaasr.ops.native import build

    library, reason = build.load()
    return provenance.environment() | {
        "memory": f"{psutil.virtual_memory().total / 1e9:.1f} GB",
        "threads": threads,
        "isa": library.mambaasr_isa().decode() if library else f"none: {reason}",
        "commit": provenance.git_commit() or "not in git",
        "date": provenance.now(),
    }


def families(part: str, quick: bool) -> dict[str, "Family"]:
    """Return the comparisons of a part by name."""
    from bench import kernels, models, prefixes

    if part == "ctc_prefix":
        return prefixes.FAMILIES
    if part != "models":
        return {part: kernels.FAMILIES[part]}
    sizes = ["tiny"] if quick else ["10M", "21M", "30M"]
    return {name: one for size in sizes for name, one in models.families(size).items()}


def measure(part: str, args: argparse.Namespace, header: dict) -> dict:
    """Measure a part; its JSON file is written at the start and after each cell.

    Returns:
        what the file holds: {"header", "cells": each {"family", "title", "name", "shape",
        "target", "sides"}, "failures": messages of cells where our own side failed}.
    """
    from tqdm import tqdm

    from bench import compare
    from mambaasr.files import atomic_write

    data: dict = {"header": header, "cells": [], "failures": []}
    path = args.folder / ("only" if args.only else "") / f"{part}.json"

    def save() -> None:
        with atomic_write(path) as stream:
            json.dump(data, stream, indent=1)

    save()
    limit = args.limit * (4 if part == "models" else 1)
    bar = tqdm(families(part, args.quick).items(), desc=part, dynamic_ncols=True)
    for family_name, family in bar:
        shapes = [family.quick] if args.quick else family.shapes
        too_slow: dict = {}
        # A process for each family: what one leaves behind is no part of another's memory.
        with contextlib.closing(compare.Worker(args.threads, inline=args.quick)) as worker:
            for shape, (index, backward) in itertools.product(shapes, enumerate(family.modes)):
                mode = (" forward", " forward + backward")[backward]
                name = f"{shape}{mode if len(family.modes) > 1 else ''}"
                if args.only not in f"{family_name} {name}":
                    continue
                bar.set_postfix_str(f"{family_name} {name}")
                sides = compare.measure(
                    family, worker, shape, backward, limit, args.budget, too_slow
                )
                ours = next(iter(sides.values()))
                if "skipped" in ours:
                    data["failures"].append(f"{family_name} {name}: {ours['skipped']}")
                else:
                    target = family.targets.get(shape, (None, None))[index]
                    cell = {"family": family_name, "title": family.title, "name": name}
                    data["cells"].append({**cell, "shape": shape, "target": target, "sides": sides})
                save()
    return data


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
    failed = False
    if measured := [part for part in PARTS if part in args.parts]:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the child processes
        header = make_header(args.threads)
        print("\n".join(f"{name}: {value}" for name, value in header.items()), flush=True)
        for message in [] if args.no_install else peers.install():
            print(message, flush=True)
    for part in measured:
        data = measure(part, args, header)
        print("\n\n".join([f"\n## {part}", *report.tables(data)]), flush=True)
        if not data["cells"] and not data["failures"]:
            print(f"no cell has {args.only!r} in its name")
        failed |= bool(data["failures"])
    if "docs" in args.parts and not ((args.quick or args.only) and measured):
        for path in report.write_docs(args.folder, args.docs, PARTS):
            print(f"written: {path}")
    return int(failed)


if __name__ == "__main__":
    from mambaasr.command import run_main

    run_main(main)
