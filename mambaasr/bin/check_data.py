"""Check a data folder: report every problem with file and line; --fix drops what is bad."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr check_data",
        description=__doc__,
        epilog="Exit code: 0 nothing wrong (or fixed), 1 problems, 2 nothing can be done.",
    )
    parser.add_argument("dir", help="the data folder")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="drop utterances that the files contradict or cannot name; the old files go to "
        "DIR/.backup (then .backup.2, ...), what was dropped and why to DIR/report.tsv. "
        "Utterances whose audio is missing or bad stay: format_audio drops and reports them, "
        "and a test set has to count them",
    )
    parser.add_argument(
        "--drop_bad_audio",
        action="store_true",
        help="with --fix: drop utterances whose audio is missing or bad too (not for test sets: "
        "the error rate would not count them)",
    )
    parser.add_argument(
        "--read_audio",
        action="store_true",
        help="read every audio file to its end (else only look whether it is there)",
    )
    parser.add_argument("--nj", type=int, default=1, help="processes for --read_audio")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.folder import DataFolder, fix
    from mambaasr.errors import UserError

    if args.drop_bad_audio and not args.fix:
        raise UserError("--drop_bad_audio extends --fix; give both")
    folder, problems = DataFolder.scan(args.dir)
    bad_audio = folder.missing_audio()
    if args.read_audio:
        from mambaasr.data.audio import audio_problems

        skip = {problem.key for problem in problems + bad_audio}
        bad_audio += audio_problems(folder, skip, args.nj)
    for problem in problems + bad_audio:
        print(problem)
    if not problems + bad_audio:
        print(f"{args.dir}: {len(folder.utterances)} utterances, no problems")
        return 0
    if not args.fix:
        count = len(problems) + len(bad_audio)
        print(f"{args.dir}: {count} problems; --fix drops the utterances that have them")
        return 1
    if args.drop_bad_audio:
        problems, bad_audio = problems + bad_audio, []
    if problems:
        kept, dropped = fix(folder, problems)
        print(f"{args.dir}: kept {kept} utterances, dropped {dropped} (see {args.dir}/report.tsv)")
    fixed = {problem.key for problem in problems}
    left = len({problem.key for problem in bad_audio} - fixed)
    if left:
        print(
            f"{args.dir}: {left} of the utterances kept have bad audio: repair it, or leave them "
            "to format_audio, which drops and reports them"
        )
    return 1 if left else 0


if __name__ == "__main__":
    run_main(main)
