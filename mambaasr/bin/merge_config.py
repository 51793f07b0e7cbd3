"""Lay small yaml blocks over a base training config, and check the whole."""

import argparse
import shlex

from mambaasr.bin import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.merge_config", description=__doc__
    )
    add = parser.add_argument
    add("--base", required=True, help="e.g. conf/train_asr.yaml")
    add("--task", choices=["asr", "lm"], default="asr", help="whose config it is (%(default)s)")
    add("--block", nargs="*", action="extend", default=[],
        help="e.g. conf/encoder/mamba.yaml: its top-level keys replace the base's")  # fmt: skip
    add("--drop", nargs="*", metavar="PATTERN",
        help="write the config with --check's options over it, by flat names "
        "(encoder_conf.num_blocks), without those that fit a pattern such as 'optim*'")  # fmt: skip
    add("--keep", nargs="*", default=[], metavar="KEY", help="flat names that --drop leaves")
    add("--drop_unless_0", nargs="*", default=[], metavar="KEY",
        help="flat names of numbers that --drop leaves out unless they are 0")  # fmt: skip
    add("--check", metavar="OPTIONS", help="check the whole, with these options of the training")
    add("--build", action="store_true",
        help="--check builds our classes too, so that an impossible size is named")  # fmt: skip
    add("--check_decoding", metavar="OPTIONS", help="check these options of asr_inference too")
    add("--decoding_config", metavar="YAML", help="and its config")
    add("--decoding_lm", choices=["true", "false"], default="false",
        help="whether it uses a language model: then its weight must not be 0")  # fmt: skip
    add("--show", nargs="+", choices=["model", "model_file"],
        help="print these instead of the config: the class, the averaged model's file")  # fmt: skip
    add("--output", help="default: print it")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    from mambaasr.config import check_training, dump, merge, read, relevant, write
    from mambaasr.decode.options import check_decoding

    args = get_parser().parse_args(argv)
    config = merge(read(args.base), map(read, args.block))
    facts = None
    if args.check is not None:
        facts = check_training(config, shlex.split(args.check), args.task, args.build)
    if args.check_decoding is not None:
        words = shlex.split(args.check_decoding)
        check_decoding(args.decoding_config, words, args.decoding_lm == "true")
    if args.drop is not None:
        whole = facts.config if facts else config
        config = relevant(whole, args.drop, args.keep, args.drop_unless_0)
    if args.show is not None:
        print("\n".join(getattr(facts, name) for name in args.show))
    elif args.output is None:
        print(dump(config), end="")
    else:
        write(args.output, config)
    return 0


if __name__ == "__main__":
    run_main(main)
