"""Make the corpus of spoken numbers: data/train, data/dev and data/test_<lang>."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main
from mambaasr.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--langs", nargs="+", default=["en"], help="from en de es fr it")
    parser.add_argument("--num_train", type=int, default=2000, help="utterances a language")
    parser.add_argument("--num_dev", type=int, default=100, help="utterances a language")
    parser.add_argument("--num_test", type=int, default=200, help="utterances a language")
    parser.add_argument(
        "--snrs",
        nargs="+",
        default="clean clean 20 15 10 5".split(),
        help="what to draw the signal-to-noise ratios [dB] from; 'clean' is no noise",
    )
    parser.add_argument(
        "--non_speech",
        type=float,
        default=0.03,
        help="silences and noises an utterance, empty texts",
    )
    parser.add_argument("--seed", type=int, default=1, help="another seed, another corpus")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output")
    parser.add_argument("--nj", type=int, default=2, help="worker processes")
    return parser


def parse_snrs(words: Sequence[str]) -> tuple[float | None, ...]:
    """Return the ratios that ``--snrs`` names, None for clean.

    Raises:
        UserError: one of them is no number.
    """
    try:
        snrs = tuple(None if word == "clean" else float(word) for word in words)
    except ValueError:
        snrs = (math.nan,)
    if not all(snr is None or math.isfinite(snr) for snr in snrs):
        raise UserError(f"--snrs: numbers and 'clean' were expected, not {' '.join(words)!r}")
    return snrs


def main(argv: Sequence[str] | None = None) -> int:
    """Make the corpus."""
    args = get_parser().parse_args(argv)
    # "en de" and en de are the same, here and for --snrs.
    langs = " ".join(args.langs).split()
    snrs = parse_snrs(" ".join(args.snrs).split())

    from spoken.corpus import generate

    sizes = {"train": args.num_train, "dev": args.num_dev, "test": args.num_test}
    places = args.data_dir, args.nj, args.non_speech
    for name, count in generate(langs, sizes, args.seed, snrs, *places).items():
        print(f"{args.data_dir}/{name}: {count} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
