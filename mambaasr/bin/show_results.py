"""Show the error rates of an experiment, and write them as RESULTS.md."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(prog="mambaasr show_results", description=__doc__)
    parser.add_argument("exp", metavar="EXP", nargs="+", help="folders such as exp/asr_<tag>")
    parser.add_argument("--output", metavar="RESULTS.md", help="file to write as well")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.files import atomic_write
    from mambaasr.score.results import results_page

    text = "\n".join(results_page(folder) for folder in args.exp)
    print(text, end="")
    if args.output:
        with atomic_write(args.output) as stream:
            stream.write(text)
    return 0


if __name__ == "__main__":
    run_main(main)
