"""Train an ASR model, or collect statistics: ESPnet's asr_train with mambaasr's classes."""

import argparse
import functools
import os
import signal
import sys
from collections.abc import Sequence

from mambaasr.command import run_main
from mambaasr.registry import of_task

EXAMPLES = """\
Statistics (stage 10) and training (stage 11):
  asr_train --collect_stats true --config conf/train_asr.yaml --output_dir STATS ...
  asr_train --config conf/train_asr.yaml --output_dir EXP --resume true \\
      --train_data_path_and_name_and_type dump/raw/train/wav.scp,speech,sound \\
      --train_data_path_and_name_and_type dump/raw/train/text,text,text \\
      --train_shape_file STATS/train/speech_shape \\
      --train_shape_file STATS/train/text_shape.char ... (valid_* likewise) \\
      --token_type char --token_list data/token_list/char/tokens.txt
"""


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are answered without ESPnet."""
    return make_parser("asr", __doc__, EXAMPLES)


def make_parser(task: str, description: str, examples: str) -> argparse.ArgumentParser:
    """Make the parser of a task's command; :func:`train` gives all else to ESPnet.

    Args:
        task: "asr" or "lm".
        description: of the command.
        examples: end of its help.
    """
    names = "\n".join(
        f"  {slot + ':':10} {', '.join(found)}" for slot, found in of_task(task).items()
    )
    parser = argparse.ArgumentParser(
        prog=f"mambaasr {task}_train",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog=f"Every option of ESPnet's {task}_train is taken; --help_all lists them. Beyond "
        f"ESPnet's\nown classes, a config or an option may name these of mambaasr:\n{names}\n\n"
        f"{examples}",
    )
    parser.add_argument("--help_all", action="store_true", help="list all of ESPnet's options")
    parser.add_argument("--config", help="yaml file of options; the command line goes over it")
    parser.add_argument("--output_dir", help="folder of the experiment or of the statistics")
    parser.add_argument("--collect_stats", metavar="BOOL", help="statistics instead of training")
    parser.add_argument("--resume", metavar="BOOL", help="resume from OUTPUT_DIR/checkpoint.pth")
    parser.add_argument("--ngpu", metavar="N", help="number of GPUs; 0 for the CPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Check the command and its config, then train or collect statistics.

    Raises:
        UserError: an option, the config, a file or a checkpoint is wrong.
    """
    return train("asr", get_parser(), argv)


def train(task: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> int:
    """Run a task's command; see :func:`main`.

    Args:
        task: "asr" or "lm".
        parser: of :func:`make_parser`.
        argv: the command's arguments, or None for the program's own.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    args, _ = parser.parse_known_args(argv)
    advice = ""
    if not args.help_all:
        from mambaasr.config import check_command, is_true

        config = check_command(argv, task)
        if not is_true(config.get("collect_stats")):
            how = "the same command" if is_true(config.get("resume")) else "with --resume true it"
            advice = f"; {how} resumes after the last whole epoch"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, functools.partial(_stop, os.getpid(), advice))
    if task == "asr":
        from mambaasr.task.asr import ASRTask as Task
    else:
        from mambaasr.task.lm import LMTask as Task
    if args.help_all:
        Task.get_parser().print_help()
        return 0
    from mambaasr.task.log import lasting_screen

    with lasting_screen():
        Task.main(cmd=argv)
    return 0


def _stop(main_process: int, advice: str, number: int, frame: object) -> None:
    if os.getpid() != main_process:  # a process that loads data, forked with this handler
        if number == signal.SIGINT:
            return  # Ctrl-C reaches all; the main process ends those that it forked
        sys.exit(128 + number)
    for other in (signal.SIGTERM, signal.SIGINT):  # the driver sends another after Ctrl-C
        signal.signal(other, signal.SIG_IGN)
    # The deaths of those processes are no failure of theirs any more.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    print(f"stopped{advice}", file=sys.stderr)
    # An exception ends the block that is writing a file, so that nothing half-written stays.
    sys.exit(128 + number)


if __name__ == "__main__":
    run_main(main)
