"""Score hypotheses against references: WER, CER and TER, by speaker, by language, in total."""

import argparse
import sys
from collections.abc import Sequence

from mambaasr.command import run_main
from mambaasr.errors import UserError
from mambaasr.score.normalizers import NORMALIZERS


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr score",
        description=__doc__
        + " Writes score.json, score.txt and errors_{wer,cer,ter}.txt. A missing or empty "
        "hypothesis counts as deleted.",
    )
    parser.add_argument("--ref", required=True, metavar="FILE", help="reference `text`")
    parser.add_argument("--hyp", required=True, metavar="FILE", help="hypothesis `text`")
    parser.add_argument("--utt2spk", metavar="FILE", help="for the rates by speaker")
    parser.add_argument(
        "--utt2lang", metavar="FILE", help="for the rates by language and their mean"
    )
    parser.add_argument(
        "--hyp_lang", metavar="FILE", help="the languages that a model found: how many are right"
    )
    parser.add_argument(
        "--output_dir", metavar="DIR", help="where to write; without it only the table is printed"
    )
    parser.add_argument(
        "--token_type",
        choices=["char", "bpe", "word"],
        default="char",
        help="the model's tokens; bpe adds the TER, in tokens of --bpe_model",
    )
    parser.add_argument("--bpe_model", metavar="FILE", help="sentencepiece model: adds the TER")
    parser.add_argument(
        "--nlsyms_txt",
        metavar="FILE",
        help="words that are no speech, one a line: not scored; 'none' for no file",
    )
    parser.add_argument(
        "--compare", metavar="FILE", help="another system's `text`: paired bootstrap of the WER"
    )
    parser.add_argument(
        "--bootstrap_samples", type=int, default=10000, metavar="N", help="default: 10000"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument(
        "--normalizer",
        choices=NORMALIZERS,
        default="none",
        help="adds the WER after what a leaderboard makes of references and hypotheses; the "
        "whisper ones need the package whisper-normalizer (default: %(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    if args.token_type == "bpe" and not args.bpe_model:
        raise UserError("--token_type bpe needs --bpe_model")
    if args.hyp_lang and not args.utt2lang:
        raise UserError("--hyp_lang needs --utt2lang, the true languages")
    if args.bootstrap_samples < 1:
        raise UserError("--bootstrap_samples must be at least 1")
    from mambaasr.score.scoring import score

    del args.token_type
    print(score(**vars(args)), end="")
    return 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
