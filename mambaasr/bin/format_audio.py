"""Write a data folder's audio anew: mono, at one sampling rate, a file an utterance or archives."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main, show_warnings


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr format_audio",
        description=__doc__,
        epilog="A rerun keeps the files that are there and right. "
        "OUT_DIR/report.tsv names the utterances whose audio is bad, and why.",
    )
    parser.add_argument("in_dir", metavar="IN_DIR", help="data folder to read")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="data folder to write")
    parser.add_argument("--fs", type=int, default=16000, help="sampling rate [Hz] (%(default)s)")
    parser.add_argument(
        "--audio_format",
        choices=("flac", "wav", "flac.ark", "wav.ark"),
        default="flac",
        help="format of the files, 16 bits a sample; flac.ark and wav.ark put up to 1000 of them "
        "into one file (%(default)s)",
    )
    parser.add_argument("--nj", type=int, default=1, help="number of processes (%(default)s)")
    parser.add_argument(
        "--channel",
        type=int,
        default=0,
        help="the channel to take, from 1, of recordings that have several; 0: what "
        "IN_DIR/reco2file_and_channel says, else their average (%(default)s)",
    )
    parser.add_argument(
        "--bad_audio",
        choices=("skip", "stop"),
        default="skip",
        help="an utterance whose audio is bad: leave it out and report it, or stop (%(default)s)",
    )
    parser.add_argument(
        "--keep_bad",
        action="store_true",
        help="for test sets: keep the transcripts of skipped utterances, which then count as "
        "deleted in the error rate",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    show_warnings()
    from mambaasr.data.format import format_folder
    from mambaasr.errors import UserError

    if args.fs < 1:
        raise UserError(f"--fs {args.fs}: give a sampling rate in Hz, such as 16000")
    print(
        format_folder(
            args.in_dir,
            args.out_dir,
            args.fs,
            args.audio_format,
            args.nj,
            args.bad_audio,
            args.keep_bad,
            args.channel or None,
        )
    )
    return 0


if __name__ == "__main__":
    run_main(main)
