"""Lay small yaml blocks over a base training config."""

import argparse
import re
import shlex
import tempfile
from pathlib import Path

from mambaasr.bin import run_main
from mambaasr.errors import UserError


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
        help="write these keys alone, e.g. frontend encoder_conf.input_layer, and what the options "
        "of --check say of them",
    )
    parser.add_argument(
        "--check",
        metavar="OPTIONS",
        help="check every file, and the whole with these options of asr_train over it, against "
        "the classes they name",
    )
    parser.add_argument("--output", type=Path, help="default: print it")
    return parser


def main(argv=None):
    from mambaasr.config import dump, merge, select
    from mambaasr.task.config import read

    args = get_parser().parse_args(argv)
    parts = [(path, read(path)) for path in (args.base, *args.block)]
    config = merge(parts[0][1], parts[1:])
    given = {}
    if args.check is not None:
        given = check(parts, config, shlex.split(args.check))
    if args.only is not None:
        names = {key.partition(".")[0] for key in args.only} & given.keys()
        config = select(config, args.only) | {f"--{name}": given[name] for name in sorted(names)}
    if args.output is None:
        print(dump(config), end="")
    else:
        from mambaasr.files import atomic_write

        with atomic_write(args.output) as stream:
            stream.write(dump(config))
    return 0


def check(parts, config, options):
    """Check configs as ``asr_train`` would, without importing ESPnet.

    Args:
        parts: list of ``(path, dict)``; checked first, so that a mistake is named with its own
            file and line. A part that gives a class's options without the class is left to the
            whole.
        config: the parts merged.
        options: words of an ``asr_train`` command line.

    Returns:
        dict: option -> list of values, as ``options`` give them.
    """
    from mambaasr.config import dump
    from mambaasr.task.config import check_command

    # Statistics ask for the least: what stage 11 adds, such as a stats_file, is not there yet.
    command = ["--collect_stats", "true", "--config"]
    for path, part in parts:
        named = {key.removesuffix("_conf") for key in part if key.endswith("_conf")}
        if not any(slot in config and slot not in part for slot in named):
            check_command([*command, path])
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder, "config.yaml")
        whole.write_text(dump(config), encoding="utf-8")
        try:
            return check_command([*command, str(whole), *options])
        except UserError as error:
            names = " + ".join(path for path, _ in parts)
            raise UserError(
                re.sub(f"{re.escape(str(whole))}(: line \\d+)?", names, str(error))
            ) from None


if __name__ == "__main__":
    run_main(main)
