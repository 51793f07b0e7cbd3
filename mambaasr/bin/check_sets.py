"""Compare a recipe's formatted sets: shared ids or audio, case, level, characters without token."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main, show_warnings


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr check_sets", description=__doc__, epilog="It warns and refuses nothing."
    )
    parser.add_argument("--train", required=True, metavar="DIR", help="the training set")
    parser.add_argument(
        "--sets", nargs="*", default=[], metavar="DIR", help="validation and test sets"
    )
    parser.add_argument("--token_list", required=True, metavar="FILE", help="of make_tokens")
    parser.add_argument(
        "--token_type", choices=("char", "bpe", "word"), default="bpe", help="(%(default)s)"
    )
    parser.add_argument("--bpemodel", metavar="FILE", help="for bpe")
    parser.add_argument("--nlsyms_txt", metavar="FILE", help="as for make_tokens")
    parser.add_argument("--bpe_nlsyms", metavar="SYMBOLS", help="as for make_tokens")
    parser.add_argument("--output", metavar="FILE", help="file for the warnings")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    show_warnings()
    from mambaasr.data.sets import check_sets

    found = check_sets(
        args.train,
        args.sets,
        args.token_list,
        args.token_type,
        args.bpemodel,
        args.nlsyms_txt,
        args.bpe_nlsyms,
        args.output,
    )
    print(f"{args.train} and {len(args.sets)} other sets: {len(found)} warnings")
    return 0


if __name__ == "__main__":
    run_main(main)
