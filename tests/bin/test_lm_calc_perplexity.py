"""Perplexities: what the model itself says of each text, in any batch; and bad input."""

import json
import math

import pytest
import torch
import yaml
from tiny_asr import TOKENS
from tiny_lm import ESPNETS, OURS, make_lm_experiment

from mambaasr.bin.lm_calc_perplexity import main
from mambaasr.errors import UserError

TEXTS = {"b": "HELLO WORLD", "a": "ONE", "odd": "é", "empty": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a text and two models; its name holds a comma and spaces."""
    folder = tmp_path_factory.mktemp("a, b c")
    (folder / "text").write_text("".join(f"{key} {text}\n" for key, text in TEXTS.items()))
    for options in (OURS, ESPNETS):
        make_lm_experiment(folder / options["lm"], **options)
    return folder


def run(folder, name, out, *more):
    arguments = ["--data_path_and_name_and_type", f"{folder}/text,text,text"]
    arguments += ["--model_file", f"{folder}/{name}/lm.pth", "--output_dir", str(out)]
    assert main([*arguments, *more]) == 0
    return json.loads((out / "perplexity.json").read_text())


def losses(folder, name):
    """Return id -> (-log-probability, tokens), text by text, from the model's own logits."""
    from mambaasr.task.lm import LMTask

    model, _ = LMTask.build_model_from_file(folder / name / "config.yaml", None, "cpu")
    model.load_state_dict(torch.load(folder / name / "lm.pth", weights_only=True))
    model.eval().double()
    found = {}
    for key, text in TEXTS.items():
        tokens = [TOKENS.index("<space>" if c == " " else c) if c in [*TOKENS, " "] else 1
                  for c in text]  # fmt: skip
        eos = len(TOKENS) - 1
        with torch.no_grad():
            scores = model.lm(torch.tensor([[eos, *tokens]]), None)[0][0].log_softmax(-1)
        found[key] = (-sum(float(s[t]) for s, t in zip(scores, [*tokens, eos], strict=True)),
                      len(tokens) + 1)  # fmt: skip
    return found


@pytest.mark.parametrize("name", ["mamba", "transformer"])
def test_it_is_the_models_own(folder, tmp_path, name):
    want = losses(folder, name)
    total, tokens = (sum(part) for part in zip(*want.values(), strict=True))
    found = run(folder, name, tmp_path / "out", "--dtype", "float64", "--batch_size", "3")
    assert found["perplexity"] == pytest.approx(math.exp(total / tokens))
    assert found["word_perplexity"] == pytest.approx(math.exp(total / (4 + len(TEXTS))))
    assert (found["tokens"], found["texts"], found["words"]) == (tokens, 4, 4)
    assert found["unknown_tokens"] == 1
    each = dict(line.split() for line in (tmp_path / "out/utt2ppl").open())
    assert list(each) == list(TEXTS)
    for key, (nll, count) in want.items():
        assert float(each[key]) == pytest.approx(math.exp(nll / count))
    assert float((tmp_path / "out/ppl").read_text()) == found["perplexity"]
    assert float((tmp_path / "out/base").read_text()) == math.e
    single = run(folder, name, tmp_path / "one", "--batch_size", "1", "--log_base", "10")
    assert single["perplexity"] == pytest.approx(found["perplexity"], rel=1e-4)
    assert (tmp_path / "one/base").read_text() == "10.0\n"


def test_chosen_texts(folder, tmp_path):
    (tmp_path / "keys").write_text("a\n")
    assert run(folder, "mamba", tmp_path, "--key_file", str(tmp_path / "keys"))["tokens"] == 4
    (tmp_path / "keys").write_text("zz\n")
    with pytest.raises(UserError, match="has no text of 'zz'"):
        run(folder, "mamba", tmp_path, "--key_file", str(tmp_path / "keys"))


def test_a_model_of_another_config(folder, tmp_path):
    more = ["--model_file", f"{folder}/transformer/lm.pth"]
    with pytest.raises(UserError, match="does not fit"):
        run(folder, "mamba", tmp_path, *more, "--train_config", f"{folder}/mamba/config.yaml")
    other = tmp_path / "asr.yaml"
    other.write_text(yaml.safe_dump({"encoder": "conmamba"}))
    with pytest.raises(UserError, match="not the config of a language model"):
        run(folder, "mamba", tmp_path, "--train_config", str(other))
    assert not (tmp_path / "perplexity.json").exists()
