"""Copy a data folder at several speeds (tempo and pitch, as by sox 'speed')."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main, show_warnings


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr perturb_speed",
        description=__doc__,
        epilog="The copies' ids and speakers begin with 'sp<factor>-'; the factor 1.0 keeps them. "
        "A rerun keeps the audio that is there and right.",
    )
    parser.add_argument("in_dir", metavar="IN_DIR", help="data folder to read")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="data folder to write")
    parser.add_argument("--factors", default="0.9 1.0 1.1", help='the speeds ("%(default)s")')
    parser.add_argument(
        "--audio_format",
        choices=("flac", "wav", "flac.ark", "wav.ark"),
        default="flac",
        help="as for format_audio (%(default)s)",
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
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    show_warnings()
    from mambaasr.data.speed import perturb_folder

    print(
        perturb_folder(
            args.in_dir,
            args.out_dir,
            args.factors,
            args.nj,
            args.bad_audio,
            args.channel or None,
            args.audio_format,
        )
    )
    return 0


if __name__ == "__main__":
    run_main(main)
