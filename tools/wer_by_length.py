"""Measure a model's word error rate on recordings of different lengths, by how they are cut.

Joins the utterances of each speaker of a data folder, in the order of their ids and without a
pause, to recordings of up to so many seconds (0: as they are), and transcribes them:

    python tools/wer_by_length.py exp/asr_mine dump/raw/test --seconds 0 14 36 \
        --ways one_pass,ctc_greedy auto,joint vad,joint
"""

import argparse
import itertools
import sys
import time

from mambaasr.command import run_main


def get_parser():
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="experiment, or a .pth in it")
    parser.add_argument("data", help="data folder, such as dump/raw/test")
    parser.add_argument("--seconds", type=float, nargs="+", default=[0, 15, 30, 60])
    parser.add_argument(
        "--ways", nargs="+", default=["one_pass,joint", "auto,joint"], metavar="LONG,SEARCH"
    )
    parser.add_argument("--utterances", type=int, help="only so many, the first ones")
    parser.add_argument("--beam_size", type=int, default=10)
    parser.add_argument("--ctc_weight", type=float, default=0.3)
    return parser


def join(utts, speakers, lengths, limit):
    """Return lists of a speaker's utterances that follow each other, each up to a length."""
    found = []
    for _, of_speaker in itertools.groupby(
        sorted(utts, key=lambda utt: (speakers[utt], utt)), key=lambda utt: speakers[utt]
    ):
        whole = 0.0
        for number, utt in enumerate(of_speaker):
            if number == 0 or whole + lengths[utt] > limit:
                found.append([])
                whole = 0.0
            found[-1].append(utt)
            whole += lengths[utt]
    return found


def main(argv=None):
    """Print a Markdown table: a row a length, a column a way, WER (RTF)."""
    args = get_parser().parse_args(argv)
    import numpy as np

    from mambaasr.data.audio import read_audio
    from mambaasr.data.folder import DataFolder
    from mambaasr.decode.speech_recognizer import SpeechRecognizer
    from mambaasr.errors import UserError
    from mambaasr.score import error_rate
    from mambaasr.score.score_files import markdown_table

    folder = DataFolder.read(args.data)
    utts = sorted(folder.utterances)[: args.utterances]
    ways = [way.split(",") for way in args.ways]
    if any(len(way) != 2 for way in ways):
        raise UserError("--ways: write LONG,SEARCH, such as auto,joint")
    models = [
        SpeechRecognizer(
            args.model, long=long, search=search, beam_size=args.beam_size,
            ctc_weight=1.0 if search.startswith("ctc") else args.ctc_weight,
        )
        for long, search in ways
    ]  # fmt: skip
    rate = models[0].rate
    waves = {
        utt: read_audio(*folder.source(utt), rate=rate, channel=folder.channel(utt))[0]
        for utt in utts
    }
    lengths = {utt: len(wave) / rate for utt, wave in waves.items()}
    rows = []
    for limit in args.seconds:
        groups = join(utts, folder.utt2spk, lengths, limit)
        recordings = [np.concatenate([waves[utt] for utt in group]) for group in groups]
        true = {str(n): " ".join(folder.text[u] for u in each) for n, each in enumerate(groups)}
        seconds = sum(lengths.values())
        row = [f"{seconds / len(groups):.1f} s"]
        for model in models:
            begun = time.process_time()
            found = model.transcribe(recordings, rate)
            spent = time.process_time() - begun
            texts = {str(number): each.text for number, each in enumerate(found)}
            for error in filter(None, (each.error for each in found)):
                print(f"not transcribed, counted as deleted: {error}", file=sys.stderr)
            scores = error_rate.total(error_rate.align(true, texts, error_rate.words))
            row.append(f"{scores.error_rate:.1f} ({spent / seconds:.3f})")
        rows.append(row)
        print(f"{len(groups)} recordings of {row[0]}: {', '.join(row[1:])}", flush=True)
    print("\n" + markdown_table(["recordings of", *args.ways], rows), end="")
    return 0


if __name__ == "__main__":
    run_main(main)
