"""Print a table: published figures, what was measured here, the difference, what is not run."""

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr table",
        description=__doc__
        + " egs/TEMPLATE/asr1/table.sh is `mambaasr table --run`. Further options are those of "
        "run.sh, such as --expdir DIR.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", help="such as tables/encoders.yaml")
    parser.add_argument("--run", action="store_true", help="before, run what is missing")
    parser.add_argument(
        "--recipe", metavar="DIR", help="default: the folder above that of the table"
    )
    parser.add_argument("--rows", metavar="A,B", help="keys of the rows; default: all")
    parser.add_argument("--scale", metavar="NAME", help="one of the table's; default: its first")
    parser.add_argument("--output", metavar="FILE", help="Markdown file to write as well")
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="write the calls of run.sh there instead, as JSON: for each its name and its words",
    )
    parser.add_argument(
        "--keep_going",
        choices=["true", "false"],
        default="true",
        help="with --run: a row that fails does not stop the others",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = get_parser()
    if {"--help", "-h"} & set(argv) and os.access("run.sh", os.X_OK):
        print(parser.format_help(), "\nThe options of run.sh:", sep="", flush=True)
        return subprocess.run(["./run.sh", "--help"], check=False).returncode
    args, rest = parser.parse_known_args(argv)
    # All of it now: the package may change while the rows run.
    from mambaasr.files import atomic_write
    from mambaasr.recipe.options import option_words, parse_given, text_of
    from mambaasr.tables.page import table_page
    from mambaasr.tables.read import read_table
    from mambaasr.tables.run import plan, run_calls

    given = {name: text_of(value) for name, value in parse_given(rest)[0].items()}
    keys = None if args.rows is None else [key.strip() for key in args.rows.split(",")]
    table = read_table(args.table, args.recipe, args.scale, given, keys)
    if args.plan:
        with atomic_write(args.plan) as stream:
            json.dump(plan(table), stream)
        return 0
    failed = []
    if args.run:
        # By itself: torch, which builds the rows' models, must not stay in memory meanwhile.
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            calls = pool.submit(plan, table).result()
        failed = run_calls(calls, args.keep_going == "true")
        print()
    words = [os.path.relpath(table.recipe / "../../TEMPLATE/asr1/table.sh"), args.table]
    words += ["--recipe", args.recipe] if args.recipe else []
    words += ["--scale", args.scale] if args.scale else []
    given.pop("dry_run", None)  # what is printed is to be run
    words += option_words(given)
    text = table_page(table, words)
    print(text, end="", flush=True)
    if args.output:
        with atomic_write(args.output) as stream:
            stream.write(text)
    if failed:
        names = "".join(f" {name};" for name in failed)
        print(f"error: {len(failed)} failed:{names}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
