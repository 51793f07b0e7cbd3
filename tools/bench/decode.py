"""Time the searches over a trained model: ours in batches beside ESPnet's, in one process.

    python tools/bench/decode.py --asr_model_file exp/asr_x/valid.acc.ave.pth \
        --wav_scp dump/raw/test/wav.scp --utterances 60 --seconds 0 5 30

Prints a table for each duration: seconds of computing a second of audio, as a ratio to the encoder
alone and to ESPnet's best; how many texts are those of ESPnet's exact search one by one (which is
to be measured too: batch size 1, margin 0); and how much memory came on top of the model's, of the
process or of the GPU. All sides take turns over the same audio. On a CPU times are of the process,
so that other work on the machine shows less.
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
    sys.path[:1] = [str(ROOT), str(ROOT / "tools")]


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
    add("--margins", type=int, nargs="*", default=[0, 100], help="ESPnet's ctc_window_margin")
    add("--searches", nargs="+", default=["joint"], help="ours: joint, ctc_greedy, ...")
    add("--beam_size", type=int, default=10)
    add("--ctc_weight", type=float, default=0.3)
    add("--threads", type=int, default=1)
    add("--device", default="cpu", help="cpu, or cuda: then times are by the clock")
    add("--rounds", type=int, default=2, help="the best of so many counts")
    add(
        "--steps",
        type=int,
        nargs="*",
        default=[],
        help="time a decoder's step behind so many tokens",
    )
    add("--steps_of", type=Path, nargs="*", default=[], help="models whose decoders are timed too")
    add("--plot", type=Path, help="picture of the steps' times, .png, .svg or .pdf")
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

    def load(file):
        return load_speech2text(file.with_name("config.yaml"), file, args.device, **options)

    model = load(args.asr_model_file)
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

        def ours(size, search, utterances=utterances):
            found = {each.key: each for each in Recogniser(model, size, search)(utterances)}
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
                    length = torch.tensor([len(wave)], device=args.device)
                    model.asr_model.encode(wave[None].to(args.device), length)
            return []

        sides: dict[str, Callable[[], list[list[int]]]] = {"encoder alone": encoder}
        for margin in args.margins:
            for size in args.batch_sizes:
                sides[f"ESPnet, batch {size}, margin {margin}"] = lambda size=size, margin=margin: (
                    theirs(size, margin)
                )
        for search in args.searches:
            name = "ours" if search == "joint" else f"ours, {search}"
            for size in args.batch_sizes:
                sides[f"{name}, batch {size}"] = lambda size=size, search=search: ours(size, search)
        times, texts, sizes = measure(sides, args.rounds, args.device)
        truth = texts.get("ESPnet, batch 1, margin 0")
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
                    "texts": f"{same} of {len(waves)}" if truth and texts[name] else "-",
                    "MB": sizes[name] and sizes[name] / 1e6,
                }
            )
        print(tabulate(rows[-len(times) :], headers="keys", tablefmt="github", floatfmt=".3g"))
        print()
    steps = {}
    for file in [args.asr_model_file, *args.steps_of] if args.steps else []:
        speech2text = model if file == args.asr_model_file else load(file)
        decoder = type(speech2text.asr_model.decoder).__name__
        steps[f"{decoder} ({file.parent.name})"] = {
            length: 1e3 * step_time(speech2text, length, args.beam_size, device=args.device)
            for length in args.steps
        }
    if steps:
        table = [
            {"tokens read": n, **{f"{name}, ms a step": of[n] for name, of in steps.items()}}
            for n in args.steps
        ]
        print(tabulate(table, headers="keys", tablefmt="github", floatfmt=".3g"))
    if args.plot and steps:
        plot(steps, args.beam_size, args.plot)
    if args.json:
        facts = provenance.environment() | {"threads": args.threads, "options": options}
        args.json.write_text(
            json.dumps(facts | {"rows": rows, "steps": steps}, indent=1, default=str) + "\n"
        )


def clock(device: str) -> float:
    """Return the process time, or with a GPU the time when all its work is done [s]."""
    if device == "cpu":
        return time.process_time()
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def plot(steps: dict[str, dict[int, float]], hypotheses: int, path: Path) -> None:
    """Draw the time of a decoder's step over the tokens that it has read."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, of in steps.items():
        axes.plot(list(of), list(of.values()), marker="o", label=name)
    axes.set(xlabel="tokens read", ylabel=f"ms a step of {hypotheses} hypotheses", xscale="log")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=150)


def step_time(model, length: int, hypotheses: int, count: int = 20, device: str = "cpu") -> float:
    """Return the time [s] of the decoder's step for an utterance's hypotheses, see :func:`clock`.

    Args:
        model: ESPnet's ``Speech2Text``.
        length: tokens that were read before.
        hypotheses: of one utterance of 250 frames.
        count: steps that are timed.
        device: of the model.
    """
    import torch

    from mambaasr.search.scorers import state_scorer

    decoder = state_scorer("decoder", model.asr_model.decoder)
    width = model.asr_model.ctc.ctc_lo.in_features
    vocab_size = len(model.asr_model.token_list)
    with torch.no_grad():
        speech, lengths = torch.randn(1, 250, width), torch.tensor([250])
        state = decoder.start(speech.to(device), lengths.to(device))
        first = torch.zeros(1, hypotheses, dtype=torch.long, device=device)
        state = decoder.reorder(state, first)
        tokens = torch.randint(1, vocab_size - 1, (length + count, 1, hypotheses)).to(device)
        for token in tokens[:length]:
            _, state = decoder.step(token, state)
        started = clock(device)
        for token in tokens[length:]:
            _, state = decoder.step(token, state)
    return (clock(device) - started) / count


def join(samples: Sequence, length: int) -> Iterator:
    """Join waves (samples) one after the other until each is at least so long."""
    import torch

    whole = torch.cat(list(samples))
    for first in range(0, max(1, len(whole) - length + 1), length):
        yield whole[first : first + length]


def measure(
    sides: dict[str, Callable[[], list[list[int]]]], rounds: int, device: str = "cpu"
) -> tuple[dict[str, float], dict[str, list[list[int]]], dict[str, int | None]]:
    """Return of each side the least time, what it found, and bytes on top of the model's.

    The sides take turns. On a CPU the bytes are None where the system does not tell them.
    """
    import torch

    from bench.compare import peak_memory, resident

    times, texts = dict.fromkeys(sides, float("inf")), {}
    sizes: dict[str, int | None] = dict.fromkeys(sides)
    for _ in range(rounds):
        for name, run in sides.items():
            if device == "cpu":
                before = resident()
            else:
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            started = clock(device)
            with contextlib.redirect_stdout(sys.stderr):
                texts[name] = run()
            times[name] = min(times[name], clock(device) - started)
            if before is not None:
                peak = peak_memory() if device == "cpu" else torch.cuda.max_memory_allocated()
                sizes[name] = max(sizes[name] or 0, peak - before)
    return times, texts, sizes


if __name__ == "__main__":
    main()
