"""Estimate an n-gram model on the tokens of texts."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr ngram_train",
        description=__doc__ + " Modified Kneser-Ney smoothing; writes an ARPA file.",
    )
    add = parser.add_argument
    add("--text", metavar="FILE", required=True, help="'id text' lines")
    add("--token_list", metavar="FILE", required=True, help="tokens.txt of the recogniser")
    add("--token_type", choices=("char", "bpe", "word"), required=True, help="what a token is")
    add("--bpemodel", metavar="MODEL", help="sentencepiece's model, for bpe")
    add("--nlsyms_txt", metavar="FILE", help="non-linguistic symbols; 'none' for no file")
    add("--ngram_num", type=int, default=3, help="tokens of the longest n-grams (%(default)s)")
    add(
        "--estimator",
        choices=("auto", "lmplz", "own"),
        default="auto",
        help="kenlm's lmplz, or this package's own; auto: lmplz where "
        "it is installed (%(default)s)",
    )
    add("--out", metavar="FILE", required=True, help="file to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.ngram import train_ngram

    print(
        train_ngram(
            args.text,
            args.token_list,
            args.out,
            args.token_type,
            args.ngram_num,
            args.bpemodel,
            args.nlsyms_txt,
            {"auto": None, "lmplz": "lmplz", "own": ""}[args.estimator],
        )
    )
    return 0


if __name__ == "__main__":
    run_main(main)
