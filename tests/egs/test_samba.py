"""Samba-ASR's blocks: parameters as their comments say, and one step of the whole."""

import re
from pathlib import Path

import pytest
import torch

from mambaasr import espnet_compat, register
from mambaasr.config import check_training, merge, read

CONF = Path(__file__).resolve().parents[2] / "egs/TEMPLATE/asr1/conf"
SIZES = ["tiny", "base", "large"]


def config(size, *more):
    blocks = [CONF / f"{slot}/samba_{size}.yaml" for slot in ("encoder", "decoder")]
    return merge(read(CONF / "train_samba.yaml"), map(read, (*blocks, *more)))


def build(config, tokens, *options):
    """Build the model of a config as a training does."""
    from mambaasr.task.asr import ASRTask

    words = ["--output_dir", "x", "--token_type", "char", *options]
    for key in ("frontend", "encoder", "decoder"):
        words += [f"--{key}", config[key], f"--{key}_conf", str(config[f"{key}_conf"])]
    words += ["--model_conf", str(config["model_conf"])]
    args = ASRTask.get_parser().parse_args(words)
    args.token_list = [f"t{index}" for index in range(tokens)]
    return ASRTask.build_model(args)


@pytest.mark.parametrize("size", SIZES)
def test_the_comments_count_right(size):
    whole = config(size, CONF / "optim/samba.yaml")
    check_training(whole)
    register()
    classes = {slot: espnet_compat.choices(slot)[whole[slot]] for slot in ("encoder", "decoder")}
    with torch.device("meta"):
        encoder = classes["encoder"](whole["frontend_conf"]["n_mels"], **whole["encoder_conf"])
        decoder = classes["decoder"](5000, encoder.output_size(), **whole["decoder_conf"])
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (encoder, decoder)]
    assert _counts(f"encoder/samba_{size}.yaml") == [f"{counts[0]:.1f}"]
    assert _counts(f"decoder/samba_{size}.yaml") == [f"{counts[1]:.1f}", f"{sum(counts):.1f}"]


def _counts(name):
    lines = (CONF / name).read_text().splitlines()
    text = " ".join(line[2:] for line in lines if line.startswith("# "))
    assert "ours" in text.lower() and "2501.02832" in text
    return re.findall(r"\d+\.\d(?= million| with)", text)


def test_one_step_of_the_whole():
    """Waveforms to a loss without CTC, and gradients everywhere."""
    torch.manual_seed(0)
    model = build(config("tiny"), 9, "--encoder_conf", "num_blocks=2")
    assert model.ctc is None and model.frontend.convention == "whisper"
    speech = torch.randn(2, 16000) * 0.1
    loss, stats, _ = model(
        speech,
        torch.tensor([16000, 12000]),
        torch.tensor([[2, 3, 4, 5], [2, 3, 6, -1]]),
        torch.tensor([4, 3]),
    )
    loss.backward()
    assert torch.isfinite(loss) and torch.equal(loss.detach(), stats["loss_att"])
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
