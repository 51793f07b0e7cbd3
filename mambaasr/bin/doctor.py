"""Show what is installed, what works on this machine, and which command fixes what does not."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr doctor",
        description=__doc__,
        epilog="Exit code: 0 when recognition can be trained and run here, 1 when it cannot. "
        "A note is about something optional; FAIL about something that is needed.",
    )
    parser.add_argument(
        "folder", nargs="?", default=".", help="where experiments will be written (default: here)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    from mambaasr.doctor import FAIL, examine, report

    findings = examine(args.folder)
    print(report(findings))
    return int(any(finding.state == FAIL for finding in findings))


if __name__ == "__main__":
    run_main(main)
