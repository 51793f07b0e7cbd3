"""Lay small yaml blocks over a base training config."""

import argparse
from pathlib import Path

from mambaasr.bin import run_main


def get_parser():
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.merge_config", description=__doc__
    )
    parser.add_argument("--base", required=True, help="e.g. conf/train_asr.yaml")
    parser.add_argument(
        "--block",
        nargs="*",
        action="extend",
        default=[],
        help="e.g. conf/encoder/mamba.yaml: its top-level keys replace the base's",
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=None,
        help="write these keys alone, e.g. frontend encoder_conf.input_layer",
    )
    parser.add_argument("--output", required=True, type=Path)
    return parser


def main(argv=None):
    from mambaasr.config import dump, load_config, merge, select
    from mambaasr.files import atomic_write

    args = get_parser().parse_args(argv)
    config = merge(load_config(args.base), [(path, load_config(path)) for path in args.block])
    if args.only is not None:
        config = select(config, args.only)
    with atomic_write(args.output) as stream:
        stream.write(dump(config))
    return 0


if __name__ == "__main__":
    run_main(main)
