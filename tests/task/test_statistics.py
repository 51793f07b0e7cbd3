"""Statistics: ESPnet's files, less what CTC cannot align."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch

from mambaasr.data.dropped import read_report
from mambaasr.data.kaldi_file import read_good_table
from mambaasr.task import features, statistics


def test_frames_needed():
    tokens = torch.tensor([[1, 1, 2, 2, 2], [1, 2, 1, -1, -1], [3, 3, -1, -1, -1]])
    needed, repeats = statistics.frames_needed(tokens, torch.tensor([5, 3, 2]))
    assert needed.tolist() == [8, 3, 3]
    assert repeats.tolist() == [3, 0, 1]


def shortest_alignment(tokens):
    """Find the fewest frames whose labels, less repeats and then blanks (0), are the tokens."""
    for frames in itertools.count():
        for labels in itertools.product(range(3), repeat=frames):
            merged = [label for label, _ in itertools.groupby(labels)]
            if tuple(label for label in merged if label) == tokens:
                return frames


@pytest.mark.parametrize("tokens", [(), (1,), (1, 2), (1, 1), (1, 1, 1), (1, 2, 2, 1)])
def test_frames_needed_are_those_of_the_shortest_alignment(tokens):
    padded = torch.tensor([[*tokens, 1, 1]])
    needed, repeats = statistics.frames_needed(padded, torch.tensor([len(tokens)]))
    assert needed.item() == shortest_alignment(tokens) == len(tokens) + repeats.item()


@pytest.mark.parametrize("ctc_weight, dropped", [(0.3, ["a", "b"]), (0.0, ["a"])])
def test_utterances_that_cannot_be_trained_on(ctc_weight, dropped):
    """a leaves no frame; b fewer than its tokens; c fits."""
    lengths = torch.tensor([4, 8, 40])

    def collect(**batch):
        return {"feats_lengths": lengths}

    encoder = SimpleNamespace(output_lengths=lambda lengths: lengths // 8)
    model = SimpleNamespace(
        encoder=encoder, ctc=object(), ctc_weight=ctc_weight, collect_feats=collect
    )
    check = statistics.FrameCheck(model)
    batch = {
        "text": torch.tensor([[1, -1], [1, 2], [1, 2]]),
        "text_lengths": torch.tensor([1, 2, 2]),
    }
    check.follow_model()
    for _, found in check.follow([(["a", "b", "c"], batch)], "train"):
        model.collect_feats(**found)
    assert list(check.dropped) == dropped
    assert check.dropped["a"] == "4 feature frames leave no encoder frame"


@pytest.mark.parametrize(
    "input_layer",
    ["conv2d", "conv2d1", "conv2d2", "conv2d6", "conv2d8", "conv1d1", "conv1d2", "conv1d3",
     "linear"],
)  # fmt: skip
def test_frames_of_espnets_encoders(input_layer):
    from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder

    encoder = EBranchformerEncoder(
        20,
        output_size=8,
        attention_heads=2,
        num_blocks=1,
        input_layer=input_layer,
        cgmlp_linear_units=8,
    ).eval()
    for frames in (31, 50, 77, 100):
        lengths = torch.tensor([frames])
        with torch.no_grad():
            found = encoder(torch.randn(1, frames, 20), lengths)[1]
        assert statistics.encoder_frames(encoder, lengths).tolist() == found.tolist()


def test_frames_of_our_encoder():
    from mambaasr.encoder.conmamba import ConMambaEncoder

    encoder = ConMambaEncoder(20, output_size=8, num_blocks=1, linear_units=8).eval()
    for frames in (31, 50, 77):
        lengths = torch.tensor([frames])
        with torch.no_grad():
            found = encoder(torch.randn(1, frames, 20), lengths)[1]
        assert statistics.encoder_frames(encoder, lengths).tolist() == found.tolist()


def test_frames_of_an_unknown_encoder():
    assert statistics.encoder_frames(torch.nn.Linear(1, 1), torch.tensor([100])) is None


def test_statistics_of_a_corpus(workspace):
    assert "Traceback" not in workspace.printed
    assert "1 of 20 utterances are left out" in workspace.printed
    stats = workspace.folder / "stats/train"
    keys = [line.split()[0] for line in (stats / "speech_shape").read_text().splitlines()]
    assert len(keys) == 19 and workspace.long not in keys
    shapes = (stats / "text_shape.char").read_text().splitlines()
    assert [line.split()[0] for line in shapes] == keys
    lines = (workspace.folder / "train/text").read_text().splitlines()
    text = dict(line.split(maxsplit=1) for line in lines)
    for line in shapes:
        utt, shape = line.split()
        assert shape == f"{len(text[utt])},{workspace.vocabulary}"
    (dropped,) = read_report(stats)
    assert dropped.utt == workspace.long
    assert "tokens and" in dropped.reason and "frames" in dropped.reason
    assert read_report(workspace.folder / "stats/valid") == []
    with numpy.load(stats / "feats_stats.npz") as feats:
        assert feats["sum"].shape == (80,) and feats["count"] > 1000


def test_lengths_give_what_the_pass_over_all_audio_gives(workspace):
    """Same utterances, same shapes, same mean and variance, and no audio is read."""
    folder = workspace.folder
    scps = [f"{folder}/{name}/wav.scp" for name in ("train", "valid")]
    frontend = {"frontend": "default", "frontend_conf": {"hop_length": 160, "fs": 16000}}
    features.feature_statistics(
        frontend, dict(zip(("train", "valid"), scps, strict=True)), folder / "features"
    )
    more = [f"--{name}_shape_file=features/{name}/speech_shape" for name in ("train", "valid")]
    for scp in scps:
        path = Path(scp)
        path.rename(f"{path}.aside")
        path.write_text(
            "".join(f"{key} gone.wav\n" for key in read_good_table(f"{path}.aside", str))
        )
    try:
        code, printed = workspace.run(workspace.arguments("stats_lengths", *more, collect=True))
    finally:
        for scp in scps:
            Path(f"{scp}.aside").rename(scp)
    assert code == 0, printed
    for name in ("train", "valid"):
        made, passed = folder / "stats_lengths" / name, folder / "stats" / name
        for file in ("speech_shape", "text_shape", "text_shape.char", "report.tsv"):
            lines = [(each / file).read_text().splitlines() for each in (made, passed)]
            assert sorted(lines[0]) == sorted(lines[1])
        with numpy.load(made / "feats_stats.npz") as ours, \
             numpy.load(passed / "feats_stats.npz") as theirs:  # fmt: skip
            for key in ("count", "sum", "sum_square"):
                # ESPnet's front end sees the padding of a batch in the last frames.
                numpy.testing.assert_allclose(ours[key], theirs[key], rtol=5e-3)


def test_texts_without_a_token_fit():
    needed, repeats = statistics.frames_needed(
        torch.zeros(2, 0, dtype=torch.long), torch.tensor([0, 0])
    )
    assert needed.tolist() == repeats.tolist() == [0, 0]
    needed, _ = statistics.frames_needed(
        torch.tensor([[5, 5, 6], [-1, -1, -1]]), torch.tensor([3, 0])
    )
    assert needed.tolist() == [4, 0]
