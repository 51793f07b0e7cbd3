"""Join texts into one file to train a language model on."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr join_texts",
        description=__doc__,
        epilog="Lines that cannot be used are left out, and named in OUT.report/report.tsv.",
    )
    parser.add_argument("--text", nargs="+", required=True, help="files of 'id text' lines")
    parser.add_argument(
        "--leave_out",
        nargs="+",
        default=[],
        metavar="WORD",
        help="take no text whose id begins with one of these, such as sp0.9-",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.texts import join_texts

    written, dropped = join_texts(args.text, args.out, args.leave_out)
    report = f"; {dropped} lines left out, see {args.out}.report/report.tsv" if dropped else ""
    print(f"{args.out}: {written} texts{report}")
    return 0


if __name__ == "__main__":
    run_main(main)
