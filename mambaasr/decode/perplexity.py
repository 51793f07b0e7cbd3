"""Measure the perplexity of a language model."""

import argparse
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambaasr import provenance
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

if TYPE_CHECKING:
    import torch


def measure(
    model_file: str | Path,
    train_config: str | Path | None,
    text: str | Path,
    output_dir: str | Path,
    key_file: str | Path | None = None,
    batch_size: int = 32,
    log_base: float | None = None,
    dtype: str = "float32",
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure perplexities; write ESPnet's ppl, base, utt2ppl, utt2ntokens, and perplexity.json.

    The perplexity is exp(-log-probability / tokens), the end of each text counted as a token. It
    compares only models of one token list; ``word_perplexity`` is of words (and ends) in place of
    tokens, and compares others too, where no token is unknown.

    Args:
        model_file: the checkpoint: a state dict, such as valid.loss.ave.pth.
        train_config: config.yaml of the experiment, or None for the one beside the checkpoint.
        text: file of ``id text`` lines.
        output_dir: where to write.
        key_file: only the ids in its first column count; None: all.
        batch_size: texts in a batch; changes no result.
        log_base: written to ``base``, as ESPnet does; None: e. A perplexity does not depend on it.
        dtype: of the weights, "float32" or "float64".
        device: "cpu" or "cuda".

    Returns:
        The content of perplexity.json.

    Raises:
        UserError: the model does not load, or the text is bad or empty.
    """
    import torch

    config = train_config or Path(model_file).with_name("config.yaml")
    texts = _read(text, key_file)
    model, preprocess = _load(model_file, config, device)
    model.to(dtype=getattr(torch, dtype)).eval()
    tokens = {key: preprocess(key, {"text": text})["text"] for key, text in texts.items()}
    losses = {}
    # Batches of similar lengths need less padding.
    keys = sorted(texts, key=lambda key: len(tokens[key]))
    for start in range(0, len(keys), batch_size):
        part = keys[start : start + batch_size]
        batch = [torch.as_tensor(tokens[key]) for key in part]
        lengths = torch.tensor([len(each) for each in batch], device=device)
        padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).to(device)
        with torch.no_grad():
            nll, _ = model.nll(padded, lengths)
        losses |= zip(part, nll.double().sum(1).tolist(), strict=True)
    unknown = preprocess.token_id_converter.unk_id
    counts = {key: len(tokens[key]) + 1 for key in texts}
    total, words = math.fsum(losses.values()), sum(len(text.split()) for text in texts.values())
    found = {
        "command": provenance.command(),
        "commit": provenance.git_commit(),
        "date": provenance.now(),
        "environment": provenance.environment(),
        "train_config": str(config),
        "model_file": str(model_file),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "text": str(text),
        "texts": len(texts),
        "words": words,
        "tokens": sum(counts.values()),
        "unknown_tokens": sum(int((each == unknown).sum()) for each in tokens.values()),
        "log_probability": -total,
        "perplexity": _exp(total / sum(counts.values())),
        "word_perplexity": _exp(total / (words + len(texts))),
    }
    folder = Path(output_dir)
    _write(folder / "ppl", [found["perplexity"]])
    _write(folder / "base", [math.e if log_base is None else log_base])
    _write(folder / "utt2ppl", (f"{key} {_exp(losses[key] / counts[key])}" for key in texts))
    _write(folder / "utt2ntokens", (f"{key} {counts[key]}" for key in texts))
    # Last: with it the others are whole.
    content = json.dumps(found, ensure_ascii=False, indent=1)
    _write(folder / "perplexity.json", [content])
    return found


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _write(path: Path, lines: Iterable[object]) -> None:
    with atomic_write(path) as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _read(path: str | Path, key_file: str | Path | None) -> dict[str, str]:
    """Return id -> text, of the ids in the key file."""
    from mambaasr.data.kaldi_file import parse_text, read_good_table

    texts = read_good_table(path, parse_text)
    if key_file is not None:
        keys = list(read_good_table(key_file, parse_text))
        missing = [key for key in keys if key not in texts]
        if missing:
            raise UserError(f"{path}: has no text of {missing[0]!r}, which {key_file} names")
        texts = {key: texts[key] for key in keys}
    if not texts:
        raise UserError(f"{path}: there is no text; write 'id text' lines")
    return texts


def _load(
    model_file: str | Path, config: str | Path, device: str
) -> tuple["torch.nn.Module", Callable[[str, dict[str, Any]], dict[str, Any]]]:
    """Return the model with its weights, and the preprocessor that makes tokens of a text."""
    from mambaasr.beside import resolve
    from mambaasr.config import read
    from mambaasr.decode.load import check_device, fill, read_weights
    from mambaasr.task.lm import LMTask

    check_device(device)
    weights = read_weights(model_file)
    trained = read(config)
    resolve(trained, Path(config).parent)
    args = argparse.Namespace(**trained)
    args.config = str(config)
    if not hasattr(args, "lm"):
        raise UserError(f"{config}: not the config of a language model: it names no `lm`")
    model = LMTask.build_model(args)
    fill(model, weights, model_file, config)
    return model.to(device), LMTask.build_preprocess_fn(args, False)
