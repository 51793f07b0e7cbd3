"""Find when the words of a known text are said in a recording."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main, show_warnings
from mambaasr.errors import UserError

FORMATS = ("ctm", "json", "srt", "vtt", "tsv", "stm", "txt")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr align",
        description=__doc__ + " By CTC's most probable path of a trained model. Example: "
        "mambaasr align talk.wav talk.txt --model exp/asr_mine",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("audio", metavar="AUDIO", help="a recording of up to ten minutes")
    add("text", metavar="TEXT", help="what is said, or a file that holds it")
    add("--model", required=True, metavar="DIR", help="experiment (exp/asr_...), or a .pth in it")
    add("-f", "--output_format", default="ctm", choices=FORMATS, help="default: ctm")
    add("--channel", type=int, metavar="N", help="from 1; default: the average of all")
    add("--language", metavar="CODE", help="for a model that is given it")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    show_warnings()
    text = args.text
    if len(text) < 255 and Path(text).is_file():
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{args.text}: cannot be read as text: {error}") from None
    text = " ".join(text.split())
    if not text:
        raise UserError(f"{args.text or 'TEXT'}: there is no text")
    from mambaasr.decode import formats
    from mambaasr.decode.recordings import Recording
    from mambaasr.decode.speech_recognizer import SpeechRecognizer
    from mambaasr.decode.transcript import Segment, Transcript

    recording = Recording(args.audio, Path(args.audio).stem, channel=args.channel)
    recognizer = SpeechRecognizer(args.model, device=args.device, language=args.language)
    try:
        words = recognizer.align(recording, text)
    except UserError as error:
        path = f"{args.audio}: "
        raise UserError(path + str(error).removeprefix(path)) from error
    segment = Segment(0, words[0].start, words[-1].end, text, words)
    found = Transcript(recording.name, [segment], words[-1].end)
    print(formats.FORMATS[args.output_format](found, formats.Layout()), end="")
    return 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
