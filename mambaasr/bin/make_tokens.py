"""Make a token list (and a sentencepiece model) from transcripts."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr make_tokens",
        description=__doc__,
        epilog="Writes DIR/tokens.txt and, for bpe, DIR/bpe.model.",
    )
    parser.add_argument("--text", nargs="+", required=True, help="'utterance transcript' files")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder to write")
    parser.add_argument(
        "--token_type",
        choices=("char", "bpe", "word"),
        default="bpe",
        help="what a token is (%(default)s)",
    )
    parser.add_argument("--nbpe", type=int, default=30, help="number of bpe units (%(default)s)")
    parser.add_argument(
        "--bpemode",
        choices=("unigram", "bpe"),
        default="unigram",
        help="sentencepiece's algorithm (%(default)s)",
    )
    parser.add_argument(
        "--nlsyms_txt",
        metavar="FILE",
        help="non-linguistic symbols such as <noise>, one a line, kept in one piece; "
        "'none' for no file",
    )
    parser.add_argument(
        "--character_coverage",
        type=float,
        default=1.0,
        help="bpe: share of the characters that get a unit (%(default)s)",
    )
    parser.add_argument(
        "--byte_fallback",
        action="store_true",
        help="bpe: spell characters without a unit in bytes; takes 256 of the units",
    )
    parser.add_argument(
        "--input_sentence_size",
        type=int,
        default=0,
        metavar="N",
        help="bpe: train on N transcripts, drawn at random; 0 for all (%(default)s)",
    )
    parser.add_argument(
        "--bpe_nlsyms",
        metavar="SYMBOLS",
        help="bpe: further symbols kept in one piece, separated by commas, or a file of them",
    )
    parser.add_argument(
        "--text_prefix",
        default="",
        metavar="WORDS",
        help="bpe: what filter_data wrote before the transcripts; its symbols, which are in "
        "--nlsyms_txt, become one token each with the space before them",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.tokens import make_tokens

    print(
        make_tokens(
            args.text,
            args.out,
            args.token_type,
            args.nbpe,
            args.bpemode,
            args.nlsyms_txt,
            args.character_coverage,
            args.byte_fallback,
            args.input_sentence_size,
            args.bpe_nlsyms,
            args.text_prefix,
        )
    )
    return 0


if __name__ == "__main__":
    run_main(main)
