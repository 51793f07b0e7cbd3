"""Do one step of a recipe: skip it when done and still right, else run, time and log it."""

import argparse
import sys
from pathlib import Path

from mambaasr.bin import run_main
from mambaasr.errors import UserError


def get_parser():
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.stage",
        description=__doc__,
        usage="%(prog)s --name NAME --marker FILE [options] -- COMMAND ...",
    )
    parser.add_argument("--name", required=True, help="what people read")
    parser.add_argument("--marker", required=True, type=Path, help="says what was done with what")
    many = {"nargs": "*", "action": "extend", "default": []}
    parser.add_argument(
        "--input", **many, help="files it reads beside those that it names (may be absent)"
    )
    parser.add_argument("--output", **many, help="files the command must have written")
    parser.add_argument("--ignore", **many, help="options that do not change the result, e.g. nj")
    parser.add_argument(
        "--variable", **many, metavar="NAME=VALUE", help="what else decides the result"
    )
    parser.add_argument(
        "--programs", type=Path, help="folder with programs of the command's own, such as local"
    )
    parser.add_argument(
        "--corpus", **many, help="folders it reads as a whole, and may first fill", metavar="FOLDER"
    )
    parser.add_argument("--resumes", **many, help="checkpoints from which the command goes on")
    switch = {"choices": ["true", "false"], "default": "false"}
    parser.add_argument(
        "--recorded", type=int, help="compare so many of its words; an input stands for the rest"
    )
    parser.add_argument(
        "--resume_changed", **switch, help="go on from checkpoints that other inputs made"
    )
    parser.add_argument(
        "--keep_outputs", **switch, help="outputs may be changed by hand: they only must be there"
    )
    parser.add_argument("--force", **switch, help="run it although it is done and still right")
    parser.add_argument("--log", type=Path, help="file for the command's output")
    parser.add_argument("--timings", type=Path, help="tsv file for the times")
    return parser


def main(argv=None):
    from mambaasr.stage import Step, run

    argv = sys.argv[1:] if argv is None else list(argv)
    split = argv.index("--") if "--" in argv else len(argv)
    args = get_parser().parse_args(argv[:split])
    if not argv[split + 1 :]:
        raise UserError("no command: write it behind --")
    step = Step(
        name=args.name,
        marker=args.marker,
        command=argv[split + 1 :],
        inputs=args.input,
        outputs=args.output,
        ignore=args.ignore,
        variables=dict(_assignment(text) for text in args.variable),
        programs=args.programs,
        corpora=args.corpus,
        keep_outputs=args.keep_outputs == "true",
        resumes=args.resumes,
        recorded=args.recorded,
        log=args.log,
        timings=args.timings,
    )
    return run(step, args.resume_changed == "true", args.force == "true")


def _assignment(text):
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UserError(f"--variable {text!r}: write NAME=VALUE")
    return name, value


if __name__ == "__main__":
    run_main(main)
