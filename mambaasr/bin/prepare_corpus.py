"""Write data folders of a known corpus: LibriSpeech, AISHELL-1, Common Voice and others."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main, show_warnings
from mambaasr.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr prepare_corpus",
        description=__doc__ + " Example: prepare_corpus librispeech --corpus_dir DIR "
        "--sets dev=dev-clean+dev-other test_clean=test-clean",
    )
    parser.add_argument("corpus", metavar="CORPUS", help="librispeech, aishell, ...")
    parser.add_argument("--corpus_dir", required=True, metavar="DIR", help="where it lies")
    parser.add_argument(
        "--sets", nargs="+", required=True, metavar="SET=PART[+PART...]", help="what to write"
    )
    parser.add_argument(
        "--languages",
        nargs="+",
        metavar="NAME",
        help="of a corpus of several: parts are splits, of each of these (all: those that have "
        "every split)",
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument(
        "--text_rules",
        metavar="YAML",
        help="how each language writes its transcripts (case, punctuation); what they were before "
        "stays in text.raw",
    )
    parser.add_argument("--nj", type=int, default=1, help="parallel jobs (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    show_warnings()
    sets = {}
    for text in args.sets:
        name, _, parts = text.partition("=")
        if not name or not all(parts.split("+")):
            raise UserError(f"--sets {text}: write SET=PART or SET=PART+PART")
        sets[name] = parts.split("+")
    if args.nj < 1:
        raise UserError("--nj must be at least 1")
    from mambaasr.data.corpora import of_languages, prepare_sets

    if args.languages:
        sets = of_languages(args.corpus, sets, args.languages)
    for name, count in prepare_sets(
        args.corpus, args.corpus_dir, sets, args.data_dir, args.nj, args.text_rules
    ).items():
        print(f"{args.data_dir / name}: {count} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
