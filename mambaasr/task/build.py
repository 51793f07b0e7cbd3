"""Build the classes that a config names, on no memory, so that what is impossible is said.

A constructor knows which sizes fit each other; asking it takes seconds, a stage that fails hours.
"""

import ast
import contextlib
import inspect
import io
import logging
import re
import traceback
import warnings
from typing import Any

from mambaasr.config.criteria import NOTHING
from mambaasr.config.read import Config
from mambaasr.config.schema import schema
from mambaasr.errors import UserError
from mambaasr.model.options import check_options
from mambaasr.registry import CLASSES, load

# In the order of the data: the width of one is what the next one gets.
_SLOTS = {
    "asr": """frontend specaug preencoder encoder postencoder decoder ctc model
        optim scheduler""".split(),
    "lm": ["lm", "optim", "scheduler"],
}
# Their constructors load weights, some from the network.
_PRETRAINED = set("""s3prl espnet_ssl fused whisper huggingface wav2vec_cnn wav2vec2 hubert
    hubert_pretrain torchaudiohubert longformer avhubert beats hugging_face_transformers
    transformer_opt""".split())  # fmt: skip
_WIDTHS = ("frontend", "preencoder", "encoder", "postencoder")
# These are small, or compute their values here and now.
_ON_CPU = ("frontend", "specaug", "preencoder", "optim", "scheduler")
_ESPNETS_MODEL = "espnet2.asr.espnet_model:ESPnetASRModel"
_TOKENS = ["<blank>", "<unk>", "<space>", *map(str, range(96)), "<sos/eos>"]


def build_classes(config: Config, task: str = "asr") -> None:
    """Build the classes of a config on torch's meta device, ours and ESPnet's.

    Classes that load trained weights are left out, and what depends on their widths.

    Args:
        config: of a whole training.
        task: "asr" or "lm".

    Raises:
        UserError: names where the option was written, the option and what is allowed.
    """
    built: dict[str, Any] = dict.fromkeys(_SLOTS["asr"])
    width: int | None = None
    accepted = schema(task)["slots"]
    for slot in _SLOTS[task]:
        name, option = config.get(slot, accepted[slot]["default"]), f"{slot}_conf"
        conf = config.get(option) or {}
        if str(name).lower() in NOTHING:
            continue
        target = CLASSES.get(slot, {}).get(name) or accepted[slot]["targets"].get(name.lower())
        if name in _PRETRAINED or (width is None and slot in (*_WIDTHS[1:], "decoder", "ctc")):
            built[slot], width = ..., width if slot in ("decoder", "ctc") else None
            continue
        try:
            with _quiet():
                built[slot] = _build(slot, target, conf, width, built)
            if slot in _WIDTHS:
                width = built[slot].output_size()
        except Exception as error:
            message = reason(error)
            place = _place(config, option if conf else slot, message)
            raise UserError(f"{place}: {option}: {message} ({slot}: {name})") from error


def reason(error: BaseException) -> str:
    """Return an exception's message in one line; of an assertion what it asserts."""
    message = " ".join(str(error).split())
    if isinstance(error, AssertionError) and (frames := traceback.extract_tb(error.__traceback__)):
        with contextlib.suppress(SyntaxError, AttributeError):  # one of several lines
            asserted = ast.unparse(ast.parse(frames[-1].line or "").body[0].test)
            message = f"{asserted} must hold" + (f": {message}" if message else "")
    return message or type(error).__name__


@contextlib.contextmanager
def _quiet():
    """Keep ESPnet's remarks for the training, which makes them again."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _build(slot, target, conf, width, built):
    """Build a class with what ESPnet gives it."""
    import torch

    if slot == "model":
        return _build_model(target, conf, built)
    made = load(target)
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    given = {"input_size": width, "encoder_output_size": width, "vocab_size": len(_TOKENS)}
    given |= {"odim": len(_TOKENS), "params": parameters, "optimizer": built["optim"]}
    taken = inspect.signature(made).parameters
    with torch.device("cpu" if slot in _ON_CPU else "meta"):
        return made(**{key: given[key] for key in given if key in taken}, **conf)


def _build_model(target, conf, built):
    """Build ESPnet's model, which ours extend, of its parts; check the options that ours add."""
    if target in CLASSES["model"].values():
        check_options(**conf, complete=False)
        added = inspect.signature(check_options).parameters
        conf, target = {key: conf[key] for key in conf if key not in added}, _ESPNETS_MODEL
    transducer = type(built["decoder"]).__name__ == "TransducerDecoder"
    if target != _ESPNETS_MODEL or transducer or ... in built.values():
        return None
    parts = {name: built[name] for name in (*_WIDTHS, "specaug", "decoder", "ctc")}
    more = {"normalize": None, "joint_network": None}
    return load(target)(vocab_size=len(_TOKENS), token_list=_TOKENS, **parts, **more, **conf)


def _place(config, option, message):
    """Return where the option that a message names first was written; else a default is wrong."""
    found = [
        (match.start(), keys)
        for keys in config.places
        if keys[0] == option and (match := re.search(rf"\b{re.escape(keys[-1])}\b", message))
    ]
    return config.where(*min(found, default=(0, (option,)))[1])
