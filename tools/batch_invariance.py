"""Measure whether a trained model's transcripts depend on the batch.

Encodes each utterance of a data folder alone and in batches, from the waveform to the encoder's
output, and compares the outputs and the greedy CTC transcripts; with --beam_size also what our
joint search and ESPnet's find in batches with what ESPnet's finds for each utterance alone:

    python tools/batch_invariance.py exp/asr_mine/config.yaml exp/asr_mine/valid.acc.ave.pth \
        dump/raw/test --beam_size 10 --utterances 60
"""

import argparse

from mambaasr.command import run_main


def get_parser():
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="config.yaml of the experiment")
    parser.add_argument("model", help="checkpoint, such as valid.acc.ave.pth")
    parser.add_argument("data", help="data folder, such as dump/raw/test")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--utterances", type=int, help="only so many, the first ones")
    parser.add_argument("--beam_size", type=int, help="search, too, with so many hypotheses")
    parser.add_argument("--ctc_weight", type=float, default=0.3, help="in the search")
    parser.add_argument("--ctc_window_margin", type=int, default=0, help="of ESPnet's; 0: exact")
    parser.add_argument("--lm_train_config", help="of a language model, for the searches")
    parser.add_argument("--lm_file", help="its weights")
    parser.add_argument("--lm_weight", type=float, default=0.3, help="its weight")
    return parser


def main(argv=None):
    """Print the largest difference and the number of transcripts that differ, a line a size."""
    args = get_parser().parse_args(argv)
    import warnings

    import torch

    from mambaasr.data.audio import read_audio
    from mambaasr.data.folder import DataFolder
    from mambaasr.decode.load import load_speech2text
    from mambaasr.decode.recogniser import ESPnetRecogniser, Recogniser, search
    from mambaasr.search.data import Hypothesis

    # ESPnet calls torch by names that are going away.
    warnings.filterwarnings("ignore", category=FutureWarning, module="espnet")
    speech2text = load_speech2text(
        args.config,
        args.model,
        lm_train_config=args.lm_train_config,
        lm_file=args.lm_file,
        lm_weight=args.lm_weight if args.lm_file else 0.0,
        beam_size=args.beam_size or 1,
        ctc_weight=args.ctc_weight,
        ctc_window_margin=args.ctc_window_margin,
    )
    model = speech2text.asr_model
    folder = DataFolder.read(args.data)
    waves = [
        torch.from_numpy(read_audio(folder.wav[utt], rate=16000)[0]).float()
        for utt in list(folder.utterances)[: args.utterances]
    ]

    @torch.no_grad()
    def encode(batch):
        lengths = torch.tensor([len(wave) for wave in batch])
        speech = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
        out, frames = model.encode(speech, lengths)
        return [x[:n] for x, n in zip(out, frames, strict=True)]

    def theirs(batch):
        if len(batch) == 1:
            (found,) = search(ESPnetRecogniser(speech2text), batch)
            return [found.hypotheses[0]]
        return [
            Hypothesis(nbest[0][2], float(nbest[0][3].score))
            for nbest in speech2text.batch_decode(batch)
        ]

    def in_batches(size, work):
        return [x for i in range(0, len(waves), size) for x in work(waves[i : i + size])]

    alone = in_batches(1, encode)
    truth = in_batches(1, theirs) if args.beam_size else []
    for size in args.batch_sizes:
        together = in_batches(size, encode)
        largest, lengths, transcripts = 0.0, 0, 0
        for one, many in zip(alone, together, strict=True):
            frames = min(len(one), len(many))
            largest = max(largest, float((one[:frames] - many[:frames]).abs().max()))
            lengths += len(one) != len(many)
            greedy = [
                torch.unique_consecutive(model.ctc.argmax(x.unsqueeze(0))[0]) for x in (one, many)
            ]
            transcripts += not torch.equal(*(g[g != 0] for g in greedy))
        print(
            f"batches of {size}: {len(waves)} utterances, largest difference {largest:.1e}, "
            f"{lengths} of another length, {transcripts} greedy transcripts differ"
        )
        if args.beam_size:
            ours = [x.hypotheses[0] for x in search(Recogniser(speech2text, size), waves)]
            for name, found in (("our search", ours), ("ESPnet's", in_batches(size, theirs))):
                print(f"batches of {size}, {name}: {_compare(truth, found, {0, model.eos})}")


def _compare(truth, found, left_out):
    """Say how many texts are equal, some tokens left out, and how far their scores are apart."""
    same = [
        abs(one.score - other.score)
        for one, other in zip(truth, found, strict=True)
        if [t for t in one.tokens if t not in left_out]
        == [t for t in other.tokens if t not in left_out]
    ]
    return (
        f"{len(same)} of {len(truth)} texts are those of ESPnet's search alone, scores within "
        f"{max(same, default=0.0):.1e}"
    )


if __name__ == "__main__":
    run_main(main)
