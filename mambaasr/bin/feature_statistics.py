"""Measure the features of sets, in parallel: lengths of utterances, and mean and variance."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr feature_statistics",
        description=__doc__,
        epilog="For each set a folder in OUTPUT_DIR with ESPnet's speech_shape and "
        "feats_stats.npz, and feats_lengths. With the shape files as its --train_shape_file and "
        "--valid_shape_file, `mambaasr asr_train --collect_stats true` reads no audio.",
    )
    parser.add_argument("--config", required=True, help="of the training; the front end matters")
    parser.add_argument("--fs", type=int, default=16000, help="sampling rate in Hz (%(default)s)")
    parser.add_argument("--train", required=True, metavar="SCP", help="wav.scp of the training set")
    parser.add_argument("--valid", required=True, metavar="SCP", help="wav.scp of the validation")
    parser.add_argument("--output_dir", required=True, help="folder to write")
    parser.add_argument("--nj", type=int, default=1, help="number of processes (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.config import read
    from mambaasr.task.features import feature_statistics

    config = read(args.config)
    conf = {**(config.get("frontend_conf") or {}), "fs": args.fs}
    frontend = {"frontend": "default", **config, "frontend_conf": conf}
    sets = {"train": args.train, "valid": args.valid}
    print(feature_statistics(frontend, sets, args.output_dir, args.nj))
    return 0


if __name__ == "__main__":
    run_main(main)
