"""Rates of the validation: those of the texts, whatever the tokens are."""

import pytest
import torch
import yaml

from mambaasr.task.asr import ASRTask
from mambaasr.task.error_rates import ErrorRates

# One wrong word of five, one wrong character of sixteen.
TRUE, FOUND = "go to the old mill", "go to the odd mill"
PIECES = {
    "char": lambda text: ["<space>" if each == " " else each for each in text],
    "bpe": lambda text: [
        piece for word in text.split() for piece in (f"▁{word[:2]}", *word[2:])
    ],
    "word": str.split,
}  # fmt: skip


def batch(kind, *texts):
    """Return the token list and each text's indices, padded with -1."""
    split = [PIECES[kind](text) for text in texts]
    tokens = ["<blank>", "<unk>", *sorted({piece for each in split for piece in each}), "<sos/eos>"]
    rows = [torch.tensor([tokens.index(piece) for piece in each]) for each in split]
    return tokens, torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


@pytest.mark.parametrize("kind", PIECES)
def test_rates_of_the_decoder(kind):
    tokens, indices = batch(kind, TRUE, FOUND)
    # What the decoder predicts at the end and behind it is no text.
    found = torch.cat([indices[1:], torch.tensor([[len(tokens) - 1, 2]])], dim=1)
    rates = ErrorRates(tokens, kind, {0, len(tokens) - 1})
    assert rates(found, indices[:1]) == (1 / 14, 1 / 5)


@pytest.mark.parametrize("kind", PIECES)
def test_rate_of_ctcs_best_path(kind):
    tokens, indices = batch(kind, TRUE, FOUND)
    path = torch.stack([indices[1], indices[1], torch.zeros_like(indices[1])], dim=1).reshape(1, -1)
    rates = ErrorRates(tokens, kind, {0, len(tokens) - 1})
    assert rates(path, indices[:1], is_ctc=True) == 1 / 14


def test_no_rate_where_there_is_none():
    tokens, indices = batch("char", TRUE)
    assert ErrorRates(tokens, "phn", {0})(indices, indices) == (0.0, None)
    silence = torch.full_like(indices, -1)
    assert ErrorRates(tokens, "char", {0})(indices, silence) == (None, None)
    assert ErrorRates(tokens, "char", {0})(indices, silence, is_ctc=True) is None


@pytest.mark.parametrize("model", ["espnet", "asr"])
def test_models_of_the_task_have_them(model, workspace):
    words = {"model": model, "frontend": "fbank", "frontend_conf": {}}
    path = workspace.folder / f"rates_{model}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(workspace.config.read_text()) | words))
    args = ASRTask.get_parser().parse_args(
        ["--config", str(path), "--output_dir", "unused", "--token_type", "word"]
        + ["--token_list", str(workspace.folder / "tokens.txt")]
    )
    found = ASRTask.build_model(args).error_calculator
    assert isinstance(found, ErrorRates) and found.token_type == "word"
