"""Split the lists of a training set in parts, of which a training holds one at a time."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr split_data",
        description=__doc__,
        epilog="For asr_train --multiple_iterator true, whose lists are then the folders in "
        "OUTPUT_DIR that have the lists' names.",
    )
    parser.add_argument(
        "--scps", nargs="+", required=True, metavar="FILE", help="lists of 'id value' lines"
    )
    parser.add_argument(
        "--keys", required=True, metavar="FILE", help="list whose ids count, such as speech_shape"
    )
    parser.add_argument("--num_splits", type=int, required=True, help="number of parts")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.splits import split_lists
    from mambaasr.errors import UserError

    paths = {Path(path).name: path for path in args.scps}
    if len(paths) < len(args.scps):
        raise UserError("--scps: two lists have one name")
    print(split_lists(paths, args.keys, args.num_splits, args.output_dir))
    return 0


if __name__ == "__main__":
    run_main(main)
