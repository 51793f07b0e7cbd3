"""Load a trained model; every mismatch of config and checkpoint is an error."""

import functools
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambaasr.errors import UserError

if TYPE_CHECKING:
    import torch

    from mambaasr.espnet_compat import Speech2Text


def load_speech2text(
    train_config: str | Path,
    model_file: str | Path,
    device: str = "cpu",
    lm_train_config: str | Path | None = None,
    lm_file: str | Path | None = None,
    ngram_file: str | Path | None = None,
    phrases: str | Path | None = None,
    phrase_weight: float = 1.0,
    **options: Any,
) -> "Speech2Text":
    """Return ESPnet's ``Speech2Text`` with every weight checked and loaded.

    Its further attribute ``parameters`` is their number in the ASR model: quantised layers, whose
    weights are no parameters, count too. Another one, ``quantised``, says whether there are some.

    ESPnet itself loads with ``strict=False``: missing weights silently keep their random values.
    So the model is built without its weights here, and filled afterwards.

    Args:
        train_config: config.yaml of the experiment.
        model_file: the checkpoint: a state dict, such as valid.acc.ave.pth.
        device: "cpu", "cuda", "cuda:1".
        lm_train_config, lm_file: the same of a language model, or None.
        ngram_file: ARPA file of an n-gram model of the tokens, or None; ``ngram_weight`` is its
            weight.
        phrases: file with phrases to prefer, or None; ``phrase_weight`` is added for each token.
        options: further arguments of ``Speech2Text``: beam_size, ctc_weight, ... Those of
            quantisation (``quantize_asr_model``, ``quantize_lm``, ...) mean what they mean there.

    Raises:
        UserError: a file is missing or unreadable, the config builds no model, or the
            checkpoint's keys or shapes are not the model's.
    """
    from mambaasr.config import read
    from mambaasr.data.tokens import read_tokens
    from mambaasr.espnet_compat import Speech2Text
    from mambaasr.lm.ngram import load as load_ngram
    from mambaasr.lm.phrases import load_phrases
    from mambaasr.registry import register

    check_device(device)
    if (lm_train_config is None) != (lm_file is None):
        raise UserError("a language model needs both lm_train_config and lm_file")
    weights = read_weights(model_file)
    lm_weights = read_weights(lm_file) if lm_file is not None else None
    configs = [str(config) for config in (train_config, lm_train_config) if config is not None]
    kinds = {name: options.pop(name) for name in list(options) if name.startswith("quantize_")}
    tokens = [read(config).get("token_list") for config in configs]
    if not tokens[0]:
        raise UserError(
            f"{train_config}: it has no token_list: give the config.yaml that lies beside the model"
        )
    if tokens[-1] != tokens[0]:
        raise UserError(f"{configs[1]}: its token_list is not that of {configs[0]}")
    # What can be wrong with it shows before the models are built.
    ngram = None
    if ngram_file is not None:
        names = tokens[0] if isinstance(tokens[0], list) else read_tokens(tokens[0])
        ngram = load_ngram(ngram_file, names)
    register()
    try:
        speech2text = Speech2Text(
            asr_train_config=str(train_config),
            asr_model_file=None,
            lm_train_config=lm_train_config and str(lm_train_config),
            device=device,
            **options,
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{train_config}: names {error.filename}, which does not exist; was the experiment "
            "moved, or its data removed?"
        ) from error
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        logging.debug("the model cannot be built", exc_info=True)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{train_config}: no model can be built from it: {reason}") from error
    fill(speech2text.asr_model, weights, model_file, train_config)
    if speech2text.asr_model.decoder is None and options.get("ctc_weight") != 1.0:
        raise UserError(f"{train_config}: the model has no decoder: decode with ctc_weight 1.0")
    lm = None
    if lm_weights is not None:
        lm = _fill_lm(speech2text, lm_weights, lm_file, lm_train_config)
    if ngram is not None:
        weight = speech2text.beam_search.weights["ngram"] if speech2text.beam_search else 0.0
        _add_scorer(speech2text, "ngram", ngram, weight)
    if phrases is not None:
        names = speech2text.asr_model.token_list
        scorer = load_phrases(phrases, functools.partial(spell, speech2text), names)
        _add_scorer(speech2text, "phrases", scorer, phrase_weight)
    speech2text.parameters = sum(each.numel() for each in speech2text.asr_model.parameters())
    speech2text.quantised = any(kinds.get(f"quantize_{name}") for name in ("asr_model", "lm"))
    for wanted, module in (("quantize_asr_model", speech2text.asr_model), ("quantize_lm", lm)):
        if kinds.get(wanted) and module is not None:
            _quantize(module, **kinds)
    return speech2text


def _quantize(
    module: "torch.nn.Module",
    quantize_modules: Sequence[str] = ("Linear",),
    quantize_dtype: str = "qint8",
    **which: bool,
) -> None:
    """Quantise layers in place, as ESPnet would on a model whose weights it had loaded itself."""
    import torch

    from mambaasr.espnet_compat import quantize_dynamic

    kinds = {getattr(torch.nn, name) for name in quantize_modules}
    with warnings.catch_warnings():
        # torch.ao.quantization is to move to a package of its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        quantize_dynamic(module, kinds, getattr(torch, quantize_dtype), inplace=True)


def read_weights(path: str | Path) -> dict[str, "torch.Tensor"]:
    """Return a checkpoint's state dict, name -> tensor on the CPU; no code in it is run.

    Raises:
        UserError: the file is missing, torn, holds more than plain values, or is no state dict.
    """
    import torch

    from mambaasr.task import checkpoints

    try:
        with open(path, "rb"):  # a missing file is not a torn one
            state = checkpoints.load(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (RuntimeError, EOFError) as error:
        raise UserError(f"{path}: not a whole checkpoint: torn, or of another kind") from error
    if isinstance(state, dict) and state and all(map(torch.is_tensor, state.values())):
        return state
    hint = ""
    if Path(path).name.startswith("checkpoint"):
        hint = "; it is the trainer's own state: name a model beside it, such as valid.acc.ave.pth"
    raise UserError(f"{path}: does not hold a model's weights by name{hint}")


def fill(
    module: "torch.nn.Module",
    state: dict[str, "torch.Tensor"],
    model_file: str | Path,
    config: str | Path,
) -> None:
    """Load a state dict whose keys and shapes must be the module's own.

    Raises:
        UserError: lists what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    found = [f"{len(keys)} {what}: {_shorten(keys)}" for what, keys in problems.items() if keys]
    if found:
        raise UserError(
            f"{model_file} does not fit {config}; {'; '.join(found)}. Give the config.yaml that "
            "lies beside the checkpoint"
        )
    module.load_state_dict(state)


def _fill_lm(
    speech2text: "Speech2Text",
    state: dict[str, "torch.Tensor"],
    lm_file: str | Path,
    lm_train_config: str | Path | None,
) -> "torch.nn.Module | None":
    """Fill the search's language model and return it, or None where its weight is 0.

    The checkpoint is of the ESPnet model that wraps it.
    """
    if speech2text.beam_search_transducer is not None:
        lm = speech2text.beam_search_transducer.lm
    else:
        search = speech2text.beam_search
        lm = {**search.full_scorers, **search.part_scorers}.get("lm")
    if lm is None:
        return None
    inner = {key.removeprefix("lm."): value for key, value in state.items()}
    fill(lm, inner, lm_file, lm_train_config)
    return lm


def _add_scorer(
    speech2text: "Speech2Text", name: str, scorer: "torch.nn.Module", weight: float
) -> None:
    """Add one of our scorers to the search; ESPnet's own n-gram model needs kenlm."""
    search = speech2text.beam_search
    if search is None:
        raise UserError(f"a transducer's search takes no {name}")
    if weight:
        scorer = scorer.to(speech2text.device)
        search.scorers[name] = search.full_scorers[name] = search.nn_dict[name] = scorer
        search.weights[name] = weight


def spell(speech2text: "Speech2Text", text: str) -> list[int]:
    """Return the tokens of a text; words that are in the token list whole stay whole."""
    from mambaasr.espnet_compat import build_tokenizer

    tokens, tokenizer = speech2text.asr_model.token_list, speech2text.tokenizer
    if speech2text.asr_train_args.token_type == "char":
        whole = [word for word in text.split() if word in tokens]
        tokenizer = build_tokenizer("char", non_linguistic_symbols=whole)
    return speech2text.converter.tokens2ids(tokenizer.text2tokens(text))


def check_device(device: str) -> None:
    """Raise a :class:`UserError` for a GPU where none is available."""
    import torch

    try:
        torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: there is no such kind; cpu, cuda, cuda:1") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("no GPU can be used here: take the CPU, or see `mambaasr doctor`")


def _shorten(keys: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
