"""Check a data folder: report every problem with file and line; --fix drops what is bad."""

import argparse

from mambaasr.bin import run_main


def get_parser():
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="python -m mambaasr.bin.check_data",
        description=__doc__,
        epilog="Exit code: 0 nothing wrong (or mended), 1 problems, 2 nothing can be done.",
    )
    parser.add_argument("dir", help="the data folder")
    parser.add_argument(
        "--fix",
        action="store_true",
        help="drop utterances with problems; the old files go to DIR/.backup, "
        "what was dropped and why to DIR/report.tsv",
    )
    parser.add_argument(
        "--read_audio",
        action="store_true",
        help="read every audio file to its end (else only look whether it is there)",
    )
    parser.add_argument("--nj", type=int, default=1, help="processes for --read_audio")
    return parser


def main(argv=None):
    """Run the command; see :func:`get_parser`."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.folder import DataFolder, fix

    folder, problems = DataFolder.scan(args.dir)
    missing = folder.missing_audio()
    unreadable = []
    if args.read_audio:
        from mambaasr.data.audio import audio_problems

        skip = {problem.key for problem in problems + missing}
        unreadable = audio_problems(folder, skip, args.nj)
    problems += missing + unreadable
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{args.dir}: {len(folder.utterances)} utterances, no problems")
        return 0
    if not args.fix:
        print(f"{args.dir}: {len(problems)} problems; --fix drops the utterances that have them")
        return 1
    kept, dropped = fix(args.dir, unreadable)
    print(f"{args.dir}: kept {kept} utterances, dropped {dropped} (see {args.dir}/report.tsv)")
    return 0


if __name__ == "__main__":
    run_main(main)
