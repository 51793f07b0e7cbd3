"""Show the error rates of experiments, or write them, with their origin, as RESULTS.md."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main
from mambaasr.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="mambaasr show_results", description=__doc__)
    parser.add_argument("exp", metavar="EXP", nargs="+", help="folders such as exp/asr_<tag>")
    parser.add_argument(
        "--output", metavar="RESULTS.md", help="write them there, with their origin"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.files import atomic_write
    from mambaasr.score.results import is_scored, results_page

    # Of a whole exp/ the statistics and what is still being trained have nothing to show.
    scored = [folder for folder in args.exp if len(args.exp) == 1 or is_scored(folder)]
    if not scored:
        raise UserError(f"nothing is scored in {', '.join(args.exp)}; run stages 12 and 13")
    for folder in sorted(set(args.exp) - set(scored)):
        if "_stats_" in Path(folder).name:  # of exp/asr_*
            continue
        print(f"{folder}: nothing is scored in it", file=sys.stderr)
    text = "\n".join(results_page(folder, bool(args.output)) for folder in scored)
    if not args.output:
        print(text, end="")
        return 0
    with atomic_write(args.output) as stream:
        stream.write(text)
    print(f"written: {args.output}")
    return 0


if __name__ == "__main__":
    run_main(main)
