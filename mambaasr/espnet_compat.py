"""The only file that imports from ESPnet, patches its modules and calls its private methods.

Two of ESPnet's objects are changed where they are used: a task's parser, whose options take other
actions (:mod:`mambaasr.task.common`), and a model's ``collect_feats`` while statistics are
collected (:mod:`mambaasr.task.statistics`).

Importing it stays light: what takes seconds, such as a task, is imported when its name is first
asked for (``from mambaasr.espnet_compat import Trainer``), and without its noise.
"""

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from espnet2.legacy.nets.scorer_interface import BatchScorerInterface
from espnet2.lm.abs_model import AbsLM
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler
from torch import Tensor

__all__ = [
    "AbsBatchStepScheduler",
    "AbsDecoder",
    "AbsEncoder",
    "AbsFrontend",
    "AbsLM",
    "AbsPostEncoder",
    "BatchScorerInterface",
    "CTC",
    "TooShortUttError",
    "averaging_and_saving_by",
    "choices",
    "collecting_statistics_by",
    "empty_texts_read",
    "encode_with",
    "encoded_frames",
    "espnet_version",
    "import_quietly",
    "initial_weights_loaded_by",
    "loss_of_transducer",
]

# name -> the module that it is imported from when it is first asked for
_LATER = {
    "ASRTask": "espnet2.tasks.asr",
    "ESPnetASRModel": "espnet2.asr.espnet_model",
    "JointNetwork": "espnet2.asr_transducer.joint_network",
    "LMTask": "espnet2.tasks.lm",
    "NestedDictAction": "espnet2.utils.nested_dict_action",
    "Reporter": "espnet2.train.reporter",
    "Speech2Text": "espnet2.bin.asr_inference",
    "Trainer": "espnet2.train.trainer",
    "add_sos_eos": "espnet2.legacy.nets.pytorch_backend.transformer.add_sos_eos",
    "collect_stats": "espnet2.main_funcs.collect_stats",
    "float_or_none": "espnet2.utils.types",
    "force_gatherable": "espnet2.torch_utils.device_funcs",
    "get_rank": "espnet2.train.distributed_utils",
    "quantize_dynamic": "espnet2.torch_utils.quantization",
    "resolve_distributed_mode": "espnet2.train.distributed_utils",
    "th_accuracy": "espnet2.legacy.nets.pytorch_backend.nets_utils",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_quietly(_LATER[name]), name)
    return found


_ASR = "espnet2.tasks.asr"
_LM = "espnet2.tasks.lm"
_TASK = "espnet2.tasks.abs_task"

# slot -> (module, name of a ClassChoices or of a plain dict in it)
_SLOTS = {
    "frontend": (_ASR, "frontend_choices"),
    "encoder": (_ASR, "encoder_choices"),
    "postencoder": (_ASR, "postencoder_choices"),
    "decoder": (_ASR, "decoder_choices"),
    "model": (_ASR, "model_choices"),
    "lm": (_LM, "lm_choices"),
    "optim": (_TASK, "optim_classes"),
    "scheduler": (_TASK, "scheduler_classes"),
}


def choices(slot: str) -> dict[str, Any]:
    """Return ESPnet's own dict of yaml names and classes for a slot; what is put in is known.

    Args:
        slot: frontend, encoder, postencoder, decoder, model, lm, optim or scheduler.

    Raises:
        KeyError: no such slot.
    """
    module, name = _SLOTS[slot]
    found = getattr(import_quietly(module), name)
    return getattr(found, "classes", found)


def import_quietly(module_name: str) -> types.ModuleType:
    """Import an ESPnet module without its noise; return the module.

    What it prints or warns about while it is imported (an absent flash-attention) is kept away
    from the screen. An import that fails raises as usual.
    """
    _provide_editdistance()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        return importlib.import_module(module_name)


def _provide_editdistance() -> None:
    """Give ESPnet, for the error rates in training, an ``editdistance`` where there is none.

    The package has no wheels for Python 3.13; rapidfuzz, which does, counts the same.
    """
    if "editdistance" in sys.modules or importlib.util.find_spec("editdistance"):
        return
    from rapidfuzz.distance import Levenshtein

    module = types.ModuleType("editdistance")
    module.__spec__ = importlib.machinery.ModuleSpec("editdistance", None)
    for name in ("eval", "distance"):
        setattr(module, name, Levenshtein.distance)
    sys.modules["editdistance"] = module


@contextlib.contextmanager
def _patched(module_name: str, **values: Any) -> Iterator[None]:
    """Give names of a module other values inside the block."""
    module = import_quietly(module_name)
    theirs = {name: vars(module)[name] for name in values if name in vars(module)}
    try:
        vars(module).update(values)
        yield
    finally:
        for name in values.keys() - theirs.keys():  # a builtin
            del vars(module)[name]
        vars(module).update(theirs)


class _Torch(types.ModuleType):
    """The module torch, with another ``save``."""

    def __init__(self, save: Callable[[Any, Any], None]) -> None:
        super().__init__("torch")
        self.save = save

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module("torch"), name)


def averaging_and_saving_by(
    average: Callable[..., None], save: Callable[[Any, Any], None]
) -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's trainer save checkpoints and average models by other functions, in a block.

    ``Trainer.run`` is one long method that calls ``torch.save`` in place; giving its module a
    ``torch`` whose ``save`` is another changes nothing else of it.

    Args:
        average: instead of ``average_nbest_models``, with its arguments.
        save: ``save(value, path)``.
    """
    return _patched("espnet2.train.trainer", torch=_Torch(save), average_nbest_models=average)


def collecting_statistics_by(
    collect: Callable[..., None],
) -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's tasks collect statistics by ``collect``, with ``collect_stats``'s arguments."""
    return _patched(_TASK, collect_stats=collect)


class _Line(str):
    """A line of a data file, whose second half may be empty."""

    def rstrip(self, *characters: Any) -> "_Line":
        return _Line(super().rstrip(*characters))

    def split(self, *separators: Any, **options: Any) -> list[str]:  # type: ignore[override]
        found = super().split(*separators, **options)
        return [*found, ""] if len(found) == 1 else found


def _lines(path: str, encoding: str = "utf-8") -> Iterator[_Line]:
    with open(path, encoding=encoding) as stream:
        yield from map(_Line, stream)


def empty_texts_read() -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's statistics read texts without words, as its training does, in a block."""
    return _patched("espnet2.train.iterable_dataset", open=_lines)


def initial_weights_loaded_by(
    load: Callable[..., None],
) -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's tasks load ``--init_param`` by another function, in a block.

    Args:
        load: ``load(theirs, init_param=..., model=..., ...)``, where ``theirs`` is ESPnet's own
            function of the same arguments.
    """
    theirs = import_quietly(_TASK).load_pretrained_model
    return _patched(_TASK, load_pretrained_model=functools.partial(load, theirs))


def loss_of_transducer(
    model: Any, frames: Tensor, lengths: Tensor, text: Tensor
) -> tuple[Tensor, float | None, float | None]:
    """Return the loss of an ASR model's transducer, and outside of training CER and WER.

    Args:
        model: ESPnet's, with a joint network.
        frames: (batch, time, width) of the encoder.
        lengths: (batch) valid frames.
        text: (batch, tokens), padded with the model's ``ignore_id``.
    """
    return model._calc_transducer_loss(frames, lengths, text)


class _LaidOver:
    """An object of another's attributes, but for some; called, it calls ``call``."""

    def __init__(self, under: Any, call: Any = None, **over: Any) -> None:
        vars(self).update(over, _under=under, _call=call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._under, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._call(*args, **options)


def encode_with(model: Any, speech: Tensor, speech_lengths: Tensor, **options: Any) -> Any:
    """Return what ESPnet's ASR model encodes, its encoder called with further arguments.

    ``ESPnetASRModel.encode`` has no way to pass them on, so it sees the model with another
    callable in the encoder's place; the model itself is not touched.

    Args:
        model: an ``ESPnetASRModel``.
        speech, speech_lengths: as in its ``encode``.
        **options: for its encoder, such as ``condition``.
    """
    encoder = _LaidOver(model.encoder, functools.partial(model.encoder, **options))
    theirs = __getattr__("ESPnetASRModel").encode
    return theirs(_LaidOver(model, encoder=encoder), speech, speech_lengths)


@contextlib.contextmanager
def encoded_frames(model: Any) -> Iterator[list[Tensor]]:
    """Collect what an ASR model encodes inside the block, which ESPnet's search does not keep.

    Yields:
        A list that each call of ``encode`` adds frames (batch, time, width) to.
    """
    encode, kept = model.encode, []

    def keep(*args: Any, **options: Any) -> Any:
        found, lengths = encode(*args, **options)
        kept.append(found[0] if isinstance(found, tuple) else found)
        return found, lengths

    model.encode = keep
    try:
        yield kept
    finally:
        del model.encode


def espnet_version() -> str:
    """Return the version that ESPnet writes into config.yaml."""
    return import_quietly(_TASK).__version__
