"""Write a data folder of features: computed from its audio, or those that its feats.scp names."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main, show_warnings


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr store_features",
        description=__doc__,
        epilog="A rerun keeps the archives that are there and right. "
        "OUT_DIR/report.tsv names the utterances that cannot be used, and why.",
    )
    parser.add_argument("in_dir", metavar="IN_DIR", help="data folder to read")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="data folder to write, with feats.scp")
    parser.add_argument(
        "--feats_type",
        choices=("fbank", "extracted"),
        default="fbank",
        help="fbank: by the front end of --config; extracted: those of IN_DIR/feats.scp are "
        "checked and listed, not copied (%(default)s)",
    )
    parser.add_argument("--config", help="of the training; the front end matters")
    parser.add_argument("--fs", type=int, default=16000, help="sampling rate [Hz] (%(default)s)")
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
        help="an utterance that is bad: leave it out and report it, or stop (%(default)s)",
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
    from mambaasr.config import read
    from mambaasr.data.features import extracted_features, store_features
    from mambaasr.errors import UserError

    how = (args.nj, args.bad_audio, args.keep_bad)
    if args.feats_type == "extracted":
        print(extracted_features(args.in_dir, args.out_dir, *how))
        return 0
    if args.config is None:
        raise UserError("--feats_type fbank: give --config with the front end")
    if args.fs < 1:
        raise UserError(f"--fs {args.fs}: give a sampling rate in Hz, such as 16000")
    folders = (args.in_dir, args.out_dir)
    print(store_features(*folders, read(args.config), args.fs, *how, args.channel or None))
    return 0


if __name__ == "__main__":
    run_main(main)
