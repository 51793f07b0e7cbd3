"""Print a table: published figures, what was measured here, the difference, what is not run."""

import argparse
import os
import shlex
import sys

from mambaasr.bin import run_main
from mambaasr.errors import UserError


def get_parser():
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr table",
        description=__doc__
        + " It only prints; egs/TEMPLATE/asr1/table.sh runs what is missing. Further options are "
        "those of run.sh, such as --expdir DIR.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", help="such as tables/encoders.yaml")
    parser.add_argument(
        "--recipe", metavar="DIR", help="default: the folder above that of the table"
    )
    parser.add_argument("--rows", metavar="A,B", help="keys of the rows; default: all")
    parser.add_argument("--scale", metavar="NAME", help="one of the table's; default: its first")
    parser.add_argument("--output", metavar="FILE", help="Markdown file to write as well")
    parser.add_argument(
        "--plan",
        metavar="FILE",
        help="write the calls of run.sh there instead (for table.sh): for each its name, the "
        "number of its words and the words, a null byte behind each",
    )
    parser.add_argument(
        "--keep_going",
        choices=["true", "false"],
        default="true",
        help="for table.sh: a row that fails does not stop the others",
    )
    return parser


def main(argv=None):
    """Run the command; return its exit code."""
    args, rest = get_parser().parse_known_args(argv)
    from mambaasr.files import atomic_write
    from mambaasr.score.table_file import read_table
    from mambaasr.score.table_page import table_page

    given = run_options(rest)
    table = read_table(args.table, args.recipe, args.scale, given)
    if args.rows is not None:
        table.select(args.rows.replace(",", " ").split())
    if args.plan:
        with atomic_write(args.plan, "wb") as stream:
            for name, words in plan(table):
                words = [f"{table.recipe}/run.sh", *words]
                fields = [name, str(len(words)), *words]
                stream.write("".join(f"{each}\0" for each in fields).encode())
        return 0
    words = [os.path.relpath(table.recipe / "../../TEMPLATE/asr1/table.sh"), args.table]
    words += ["--recipe", args.recipe] if args.recipe else []
    words += ["--scale", args.scale] if args.scale else []
    words += [word for name, value in given.items() for word in (f"--{name}", value)]
    text = table_page(table, words)
    print(text, end="")
    if args.output:
        with atomic_write(args.output) as stream:
            stream.write(text)
    return 0


def run_options(words):
    """Return ``--name value`` and ``--name=value`` as a dict, the last of a name winning."""
    given, words = {}, list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"what does `{word}` belong to? Options look like --name value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            if not words:
                raise UserError(f"--{name} needs a value")
            value = words.pop(0)
        given[name.replace("-", "_")] = value
    return given


def plan(table):
    """Return (name, words behind run.sh) of every run of a table's rows.

    The configs of every row's training, language model and decoding are checked first: a mistake
    in the last one is told before the first one has taken its hours. Where no column wants more
    than a training, nothing is decoded.

    Raises:
        UserError: a row's blocks or options are wrong.
    """
    from mambaasr.config import check_training, read
    from mambaasr.decode.options import check_decoding

    found = []
    for row in table.rows:
        for run in table.runs(row) if row.options is not None else ():
            options = table.defaults | dict(run.options)
            try:
                words = shlex.split(options.get("asr_args") or "")
                check_training(run.config, words, build=True)
                if options.get("use_lm") == "true" and options.get("lm_config"):
                    path = str(table.recipe / options["lm_config"])
                    words = shlex.split(options.get("lm_args") or "")
                    check_training(read(path), words, "lm", build=True)
                if table.decodes:
                    path = options.get("inference_config")
                    check_decoding(
                        path and str(table.recipe / path),
                        shlex.split(options.get("inference_args") or ""),
                        options.get("use_lm") == "true",
                    )
            except UserError as error:
                raise UserError(f"{table.path}: row `{row.key}`: {error}") from None
            details = [f"seed {run.seed}"] if run.seed is not None else []
            details += [run.decoding] if run.decoding else []
            name = row.key + (f" ({', '.join(details)})" if details else "")
            last = [] if table.decodes or "stop_stage" in table.given else ["--stop_stage", "11"]
            found.append((name, [*run.words, *last]))
    return found


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
