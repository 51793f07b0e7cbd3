"""Transcribe recordings of any kind and length with a trained model."""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

from mambaasr.command import run_main
from mambaasr.errors import UserError

FORMATS = ("txt", "json", "srt", "vtt", "tsv", "ctm", "stm")
# As in mambaasr/decode, which imports torch.
SEARCHES = ("joint", "attention", "ctc_greedy", "ctc_prefix", "rescore")
LONG = ("auto", "one_pass", "windows", "vad")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr transcribe",
        description=__doc__ + " Example: mambaasr transcribe talk.mp3 --model exp/asr_mine",
        epilog="Exit status: 0 where all succeeded, 1 where a recording failed, 2 for a wrong "
        "call, 130 where it was interrupted: the same command goes on. Options that are not given "
        "are those of the model's last decoding (stage 12).",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="files, folders (all audio below them), patterns, @LIST (a file, an input a line), - "
        "(standard input), data folders with a wav.scp",
    )
    add("--model", required=True, metavar="DIR", help="experiment (exp/asr_...), or a .pth in it")
    add("-o", "--output_dir", metavar="DIR", help="where to write; without it the text is printed")
    add(
        "-f",
        "--output_format",
        metavar="FORMAT",
        help=f"one or several of {','.join(FORMATS)}; default: all of them",
    )
    add("--json_lines", action="store_true", help="print a JSON object for each recording")
    add("--overwrite", action="store_true", help="transcribe again what is done already")
    add("--search", choices=SEARCHES, help="joint: decoder and CTC; ctc_greedy: fastest")
    add("--beam_size", type=_positive, metavar="N", help="hypotheses kept at each step")
    add("--ctc_weight", type=float, metavar="W", help="0 to 1")
    add("--nbest", type=_positive, default=1, metavar="N", help="hypotheses in the JSON")
    add("--batch_size", default="auto", metavar="N", help="pieces at once; changes no text")
    add(
        "--long",
        default="auto",
        choices=LONG,
        help="long recordings: windows cuts where CTC says that nothing is said, vad where it is "
        "soft, one_pass not at all; auto: windows for what is longer than the training's "
        "utterances (default)",
    )
    add(
        "--longest",
        type=float,
        metavar="SECONDS",
        help="of a piece, at most; default: as in the training",
    )
    add("--clip_timestamps", type=_clips, metavar="START,END,...", help="only these stretches [s]")
    add("--channel", type=_positive, metavar="N", help="from 1; default: the average of all")
    add("--language", metavar="CODE", help="for a model that is given it")
    add("--prompt", metavar="WORDS", help="what every text began with in training")
    add("--phrases", metavar="FILE", help="phrases to prefer, one a line")
    add("--phrase_weight", type=float, default=1.0, metavar="W", help="for each of their tokens")
    add("--word_timestamps", type=_switch, default=True, metavar="BOOL", help="words in the JSON")
    add("--max_line_width", type=_positive, metavar="N", help="subtitles: characters a line")
    add("--max_line_count", type=_positive, metavar="N", help="subtitles: lines")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    add("--threads", type=_positive, metavar="N", help="of the processor")
    add("--quiet", action="store_true", help="neither a bar nor a summary")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    check(args)
    from mambaasr.decode.transcribe import transcribe

    return transcribe(args)


def check(args: argparse.Namespace) -> None:
    """Check the options that go together; formats become a list.

    Raises:
        UserError: names them.
    """
    if args.output_format and args.output_dir is None:
        raise UserError("--output_format needs --output_dir; --json_lines prints JSON")
    wanted = [name.strip() for name in (args.output_format or "all").split(",")]
    args.formats = list(FORMATS) if "all" in wanted else list(dict.fromkeys(wanted))
    for name in args.formats:
        if name not in FORMATS:
            raise UserError(f"--output_format {name}: choose of {', '.join(FORMATS)}, all")
    if args.max_line_count and not args.max_line_width:
        raise UserError("--max_line_count needs --max_line_width")
    if not math.isfinite(args.phrase_weight):
        raise UserError(f"--phrase_weight {args.phrase_weight}: give a number")
    if args.ctc_weight is not None and not 0 <= args.ctc_weight <= 1:
        raise UserError(f"--ctc_weight {args.ctc_weight}: it lies from 0 to 1")
    if args.longest is not None and not 1 <= args.longest < math.inf:
        raise UserError(f"--longest {args.longest}: give at least a second")
    if args.batch_size != "auto":
        try:
            args.batch_size = _positive(args.batch_size)
        except (ValueError, argparse.ArgumentTypeError):
            raise UserError(f"--batch_size {args.batch_size}: a number from 1, or auto") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1")
    return int(text)


def _clips(text: str) -> Any:
    from mambaasr.decode.recordings import parse_clips

    try:
        return parse_clips(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _switch(text: str) -> bool:
    from mambaasr.decode.options import str2bool

    return str2bool(text)


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
