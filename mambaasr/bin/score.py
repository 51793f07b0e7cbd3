"""Score hypotheses against references: WER, CER and TER, by speaker, by language, in total."""

import argparse
import sys
from collections.abc import Sequence

from mambaasr.command import run_main
from mambaasr.errors import UserError


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
    from mambaasr.data.tokens import read_symbols
    from mambaasr.score import bootstrap, error_rate, score_files

    skip = frozenset(read_symbols(args.nlsyms_txt))
    ref, hyp = _read(args.ref, skip), _read(args.hyp, skip, hypotheses=True)
    error_rate.check_ids(ref, hyp, args.hyp)
    speakers = _read(args.utt2spk) if args.utt2spk else None
    languages = _read(args.utt2lang) if args.utt2lang else None
    splits = {"wer": error_rate.words, "cer": error_rate.characters}
    if args.bpe_model:
        splits["ter"] = error_rate.bpe_tokens(args.bpe_model)
    scores = {name: error_rate.align(ref, hyp, split) for name, split in splits.items()}
    details = {
        "ref": str(args.ref),
        "hyp": str(args.hyp),
        "missing": sorted(set(ref) - set(hyp)),
    }
    if args.hyp_lang:
        found = _read(args.hyp_lang, hypotheses=True)
        error_rate.check_ids(ref, found, args.hyp_lang)
        error_rate.check_groups(ref, languages, "language")
        right = sum(found.get(utt) == languages[utt] for utt in ref)
        details["lid"] = {"hyp": str(args.hyp_lang), "utterances": len(ref), "correct": right}
    if args.compare:
        other = _read(args.compare, skip, hypotheses=True)
        error_rate.check_ids(ref, other, args.compare)
        others = error_rate.align(ref, other, error_rate.words)
        result = bootstrap.paired_bootstrap(
            scores["wer"], others, args.bootstrap_samples, args.seed
        )
        details["compare"] = {
            "other": str(args.compare),
            **result._asdict(),
            "significant": result.significant,
        }
    if args.output_dir:
        text = score_files.write_scores(args.output_dir, scores, speakers, details, languages)
    else:
        text = score_files.score_text(scores, speakers, details, languages)
    print(text, end="")
    return 0


def _read(
    path: str, skip: frozenset[str] = frozenset(), hypotheses: bool = False
) -> dict[str, str]:
    """Return a Kaldi file as a dict, the words in ``skip`` left out; a bad line is an error.

    A file of hypotheses may be empty, and any character may be in them.
    """
    from mambaasr.data.kaldi_file import parse_hypothesis, parse_text, read_good_table

    table = read_good_table(path, parse_hypothesis if hypotheses else parse_text)
    if not table and not hypotheses:
        raise UserError(f"{path}: the file is empty; write it, one 'id value' a line")
    if not skip:
        return dict(table)
    return {utt: " ".join(w for w in text.split() if w not in skip) for utt, text in table.items()}


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
