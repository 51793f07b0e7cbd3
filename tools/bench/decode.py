"""Time the searches over a trained model: ours in batches beside ESPnet's, in one process.

    python tools/bench/decode.py --asr_model_file exp/asr_x/valid.acc.ave.pth \
        --wav_scp dump/raw/test/wav.scp --utterances 60 --seconds 0 5 30

Prints a table for each duration: seconds of computing a second of audio, as a ratio to the encoder
alone and to ESPnet's best, and whether the texts are those of ESPnet's exact search one by one.
All sides take turns over the same audio; times are of the process, so that other work on the
machine shows less.
"""

import argparse
import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:1] = [str(ROOT)]


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--asr_model_file", type=Path, required=True, help="config.yaml lies beside it")
    add("--wav_scp", required=True, help="audio; paths are as seen from the current folder")
    add("--utterances", type=int, default=60, help="the first so many; 0: all")
    add("--seconds", type=float, nargs="+", default=[0], help="join utterances to so long; 0: not")
    add("--batch_sizes", type=int, nargs="+", default=[1, 4, 8, 16])
    add("--margins", type=int, nargs="+", default=[0, 100], help="ESPnet's ctc_window_margin")
    add("--beam_size", type=int, default=10)
    add("--ctc_weight", type=float, default=0.3)
    add("--threads", type=int, default=1)
    add("--rounds", type=int, default=2, help="the best of so many counts")
    add(
        "--steps",
        type=int,
        nargs="*",
        default=[],
        help="time a decoder's step behind so many tokens",
    )
    add("--json", type=Path, help="file to write the figures to")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    args = get_parser().parse_args(argv)
    import torch
    from tabulate import tabulate

    from mambaasr import provenance
    from mambaasr.data.audio import read_audio
    from mambaasr.decode.inputs import read_wavs
    from mambaasr.decode.load import load_speech2text
    from mambaasr.decode.recogniser import Recogniser, Utterance

    torch.set_num_threads(args.threads)
    for name in ("espnet", "espnet2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    options = dict(beam_size=args.beam_size, ctc_weight=args.ctc_weight, ctc_window_margin=0)
    config = args.asr_model_file.with_name("config.yaml")
    model = load_speech2text(config, args.asr_model_file, **options)
    rate = Recogniser(model).rate
    wavs = list(read_wavs([f"{args.wav_scp},speech,sound"]).items())
    samples = [
        torch.as_tensor(read_audio(path, rate=rate)[0])
        for _, path in wavs[: args.utterances or None]
    ]
    rows = []
    for seconds in args.seconds:
        waves = list(join(samples, int(seconds * rate))) if seconds else samples
        utterances = [Utterance(number, wave) for number, wave in enumerate(waves)]
        audio = sum(map(len, waves)) / rate

        def ours(size, utterances=utterances):
            found = {each.key: each for each in Recogniser(model, size)(utterances)}
            texts = [found[each.key].hypotheses[0].tokens for each in utterances]
            return [[token for token in text if token] for text in texts]

        def theirs(size, margin, waves=waves):
            model.beam_search.part_scorers["ctc"].window_margin = margin
            found = [
                each
                for first in range(0, len(waves), size)
                for each in (
                    model.batch_decode(waves[first : first + size])
                    if size > 1
                    else [model(waves[first])]
                )
            ]
            return [[t for t in each[0][2] if t != model.asr_model.eos] for each in found]

        def encoder(waves=waves):
            with torch.no_grad():
                for wave in waves:
                    model.asr_model.encode(wave[None], torch.tensor([len(wave)]))
            return []

        sides: dict[str, Callable[[], list[list[int]]]] = {"encoder alone": encoder}
        for margin in args.margins:
            for size in args.batch_sizes:
                sides[f"ESPnet, batch {size}, margin {margin}"] = lambda size=size, margin=margin: (
                    theirs(size, margin)
                )
        for size in args.batch_sizes:
            sides[f"ours, batch {size}"] = lambda size=size: ours(size)
        times, texts = measure(sides, args.rounds)
        truth = texts.get(f"ESPnet, batch 1, margin {args.margins[0]}")
        best = min((t for name, t in times.items() if name.startswith("ESPnet")), default=None)
        for name, spent in times.items():
            same = sum(a == b for a, b in zip(texts[name], truth or (), strict=False))
            rows.append(
                {
                    "seconds": seconds or "as they are",
                    "search": name,
                    "RTF": spent / audio,
                    "to the encoder": spent / times["encoder alone"],
                    "faster than ESPnet's best": best and best / spent,
                    "texts": f"{same} of {len(waves)}" if texts[name] else "-",
                }
            )
        print(tabulate(rows[-len(times) :], headers="keys", tablefmt="github", floatfmt=".3g"))
        print()
    steps = {length: step_time(model, length, args.beam_size) for length in args.steps}
    if steps:
        table = [
            {"tokens read": length, "ms a step": 1e3 * spent} for length, spent in steps.items()
        ]
        print(tabulate(table, headers="keys", tablefmt="github", floatfmt=".3g"))
    if args.json:
        facts = provenance.environment() | {"threads": args.threads, "options": options}
        args.json.write_text(
            json.dumps(facts | {"rows": rows, "steps": steps}, indent=1, default=str) + "\n"
        )


def step_time(model, length: int, hypotheses: int, count: int = 20) -> float:
    """Return the process time [s] of the decoder's step for an utterance's hypotheses.

    Args:
        model: ESPnet's ``Speech2Text``.
        length: tokens that were read before.
        hypotheses: of one utterance of 250 frames.
        count: steps that are timed.
    """
    import torch

    from mambaasr.search.scorers import state_scorer

    decoder = state_scorer("decoder", model.asr_model.decoder)
    width = model.asr_model.ctc.ctc_lo.in_features
    vocab_size = len(model.asr_model.token_list)
    with torch.no_grad():
        state = decoder.start(torch.randn(1, 250, width), torch.tensor([250]))
        state = decoder.reorder(state, torch.zeros(1, hypotheses, dtype=torch.long))
        tokens = torch.randint(1, vocab_size - 1, (length + count, 1, hypotheses))
        for token in tokens[:length]:
            _, state = decoder.step(token, state)
        started = time.process_time()
        for token in tokens[length:]:
            _, state = decoder.step(token, state)
    return (time.process_time() - started) / count


def join(samples: Sequence, length: int) -> Iterator:
    """Join waves (samples) one after the other until each is at least so long."""
    import torch

    whole = torch.cat(list(samples))
    for first in range(0, max(1, len(whole) - length + 1), length):
        yield whole[first : first + length]


def measure(
    sides: dict[str, Callable[[], list[list[int]]]], rounds: int
) -> tuple[dict[str, float], dict[str, list[list[int]]]]:
    """Return the least process time of each side, and what it found; the sides take turns."""
    times, texts = dict.fromkeys(sides, float("inf")), {}
    for _ in range(rounds):
        for name, run in sides.items():
            started = time.process_time()
            with contextlib.redirect_stdout(sys.stderr):
                texts[name] = run()
            times[name] = min(times[name], time.process_time() - started)
    return times, texts


if __name__ == "__main__":
    main()
