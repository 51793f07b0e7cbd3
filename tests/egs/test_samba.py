"""Samba-ASR's blocks: parameters as their comments say."""

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
