"""Prepare the AN4 corpus: data/train_nodev, data/train_dev and data/test."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus",
        default="downloads",
        help="folder with etc/ and wav/; 'downloads': fetch it into that folder (%(default)s)",
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument(
        "--check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compare the files with the SHA-256 sums in local/an4.sha256",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Find or download the corpus, check it and write the data folders."""
    args = get_parser().parse_args(argv)

    import an4

    an4.prepare(an4.find_corpus(args.corpus, args.check), args.data_dir, check=args.check)
    return 0


if __name__ == "__main__":
    run_main(main)
