"""Copy a formatted data folder without utterances that are too short, too long or have no text."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr filter_data",
        description=__doc__,
        epilog="For training and validation sets only: a test set is never filtered. "
        "OUT_DIR/report.tsv names the dropped utterances, and why.",
    )
    parser.add_argument("in_dir", metavar="IN_DIR", help="data folder to read")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="data folder to write")
    parser.add_argument("--min_wav_duration", type=float, default=0.1, help="seconds (%(default)s)")
    parser.add_argument("--max_wav_duration", type=float, default=20, help="seconds (%(default)s)")
    parser.add_argument(
        "--fs",
        type=int,
        help="sampling rate [Hz] of utt2num_samples beside features, which do not say it; without "
        "it their frames count, 10 ms each",
    )
    parser.add_argument(
        "--text_prefix",
        default="",
        metavar="WORDS",
        help="task tokens to write before each transcript, such as '<|{lang}|> <|transcribe|>'; "
        "{lang} is the utterance's language in utt2lang",
    )
    parser.add_argument(
        "--nlsyms_txt",
        metavar="FILE",
        help="non-linguistic symbols, one a line, among which are those of --text_prefix",
    )
    parser.add_argument(
        "--non_speech_ratio",
        type=float,
        default=0.0,
        metavar="RATIO",
        help="keep utterances with an empty transcript, and add silence and noise, up to so many "
        "for each one with a transcript (%(default)s)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.filter import filter_folder
    from mambaasr.data.tokens import read_symbols

    print(
        filter_folder(
            args.in_dir,
            args.out_dir,
            args.min_wav_duration,
            args.max_wav_duration,
            args.text_prefix,
            read_symbols(args.nlsyms_txt),
            args.non_speech_ratio,
            args.fs,
        )
    )
    return 0


if __name__ == "__main__":
    run_main(main)
