"""Measure the kernels and encoders beside their peers, and write what was measured.

    python tools/bench/run.py                      everything, then the documents
    python tools/bench/run.py scan --shapes 1,375,512,16
    python tools/bench/run.py docs                 docs/benchmarks.md and its plot, from the JSON

Each figure is kept in build/bench/<part>.json as soon as it is there; what was measured with this
very code is not measured again. All sides of a comparison have the same threads and take turns.
"""

import argparse
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# This folder itself must go: its modules are the package `bench`.
sys.path[0] = str(ROOT / "tools")
if str(ROOT) not in sys.path:
    sys.path.insert(1, str(ROOT))


def shape(text):
    """Read 1,375,512,16."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text}: say batch,frames,channels,states")
    return numbers


def part(text):
    """Return the name of a part; argparse's choices would refuse that none is named."""
    from bench.parts import CELLS

    if text not in (*CELLS, "docs"):
        raise argparse.ArgumentTypeError(f"'{text}': choose from {', '.join(CELLS)}, docs")
    return text


def get_parser():
    """Return the command's parser."""
    from bench.parts import CELLS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", type=part, metavar="part")
    parser.epilog = f"parts: {', '.join(CELLS)}, docs; all of them by default"
    parser.add_argument("--shapes", type=shape, nargs="+", help="of the scan: 1,375,512,16 ...")
    parser.add_argument("--sizes", nargs="+", choices=["10M", "21M", "30M"], help="of the encoders")
    parser.add_argument("--threads", type=int, help="of each side; default: all usable cores")
    parser.add_argument("--limit", type=float, default=60, help="seconds for one run of a peer")
    parser.add_argument("--model_limit", type=float, default=240, help="the same for an encoder")
    parser.add_argument("--budget", type=float, default=6, help="seconds of rounds for a cell")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument("--anew", action="store_true", help="measure again what is there")
    parser.add_argument("--no_install", action="store_true", help="take the peers that are there")
    parser.add_argument("--folder", type=Path, help="of the JSON; default: build/bench")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where documents go")
    return parser


def make_header(threads):
    """What every figure depends on."""
    import torch

    from bench.worker import available_memory, gigabytes
    from mambaasr import provenance
    from mambaasr.ops.native import build

    library, reason = build.load()
    isa = library.mambaasr_isa().decode() if library else f"none: {reason}"
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    print(f"memory free now: {gigabytes(available_memory())}")
    return {
        "cpu": provenance.cpu_model(),
        "memory": gigabytes(total),
        "threads": threads,
        "isa": isa,
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "commit": provenance.git_commit() or "not in git",
        "date": provenance.now(),
    }


def main(argv=None):
    """Run the parts that were asked for; 1 if a cell failed."""
    args = get_parser().parse_args(argv)
    from tqdm import tqdm

    from bench import docs, parts, peers
    from bench.report import TABLES
    from bench.store import Store, fingerprint
    from mambaasr.parallel import usable_cores

    folder = args.folder or ROOT / "build" / ("bench-quick" if args.quick else "bench")
    chosen = args.parts or [*parts.CELLS, "docs"]
    measured = [part for part in chosen if part != "docs"]
    failures = []
    if measured:
        settings = parts.Settings(
            threads=args.threads or usable_cores(),
            limit=args.limit,
            model_limit=args.model_limit,
            budget=0.2 if args.quick else args.budget,
            shapes=tuple(args.shapes) if args.shapes else None,
            sizes=tuple(args.sizes or ("10M", "21M", "30M")),
            quick=args.quick,
        )
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)
        header = make_header(settings.threads)
        print("\n".join(f"{name}: {value}" for name, value in header.items()))
        if not args.quick:
            total = sum(parts.ESTIMATES[part] for part in measured)
            print(f"about {total} minutes on two cores, less what is there already", flush=True)
        if not args.no_install:
            peers.install()
        code = fingerprint()
    for part in measured:
        started = time.monotonic()
        store = Store(folder, part, header, code, args.anew)
        with tqdm(unit=" cells", desc=part, mininterval=0, dynamic_ncols=True) as bar:

            def progress(text, bar=bar):
                bar.set_postfix_str(text)
                bar.update()

            failed = parts.measure(part, settings, store, progress)
        print(f"\n== {part}, {time.monotonic() - started:.0f} s ==")
        for table in TABLES[part](store.cells) if store.cells else ():
            print(f"\n{table.text()}")
        for failure in failed:
            print(f"failed: {failure}")
        sys.stdout.flush()
        failures += failed
    if "docs" in chosen and (args.parts or not args.quick):
        for path in docs.write(folder, args.docs):
            print(f"written: {path}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
