"""The only file that imports from ESPnet, patches its modules and calls its private methods.

Two of ESPnet's objects are changed where they are used: a task's parser, whose options take other
actions (:mod:`mambaasr.task.common`), and a model's ``collect_feats`` while statistics are
collected (:mod:`mambaasr.task.statistics`). One is changed for good, by :func:`opening_configs_by`.

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
from pathlib import Path
from typing import Any

from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.asr.specaug.specaug import SpecAug
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
    "SpecAug",
    "TooShortUttError",
    "averaging_and_saving_by",
    "choices",
    "collecting_statistics_by",
    "encode_with",
    "encoded_frames",
    "espnet_version",
    "import_quietly",
    "initial_weights_loaded_by",
    "loss_of_transducer",
    "opening_configs_by",
    "writing_config_by",
]

# name -> the module that it is imported from when it is first asked for
_LATER = {
    "AbsSampler": "espnet2.samplers.abs_sampler",
    "SequenceIterFactory": "espnet2.iterators.sequence_iter_factory",
    "build_batch_sampler": "espnet2.samplers.build_batch_sampler",
    "ASRTask": "espnet2.tasks.asr",
    "ESPnetASRModel": "espnet2.asr.espnet_model",
    "JointNetwork": "espnet2.asr_transducer.joint_network",
    "LMTask": "espnet2.tasks.lm",
    "NestedDictAction": "espnet2.utils.nested_dict_action",
    "Reporter": "espnet2.train.reporter",
    "Speech2Text": "espnet2.bin.asr_inference",
    "Trainer": "espnet2.train.trainer",
    "build_tokenizer": "espnet2.text.build_tokenizer",
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
    "specaug": (_ASR, "specaug_choices"),
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
        slot: frontend, specaug, encoder, postencoder, decoder, model, lm, optim or scheduler.

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
    theirs = {name: getattr(module, name) for name in values}
    try:
        vars(module).update(values)
        yield
    finally:
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


def writing_config_by(
    change: Callable[[dict[str, Any], Path], dict[str, Any]],
) -> contextlib.AbstractContextManager[None]:
    """Let ESPnet's tasks write what ``change(config, folder)`` returns to config.yaml, in a block.

    Args:
        change: gets the options of the training, which stay as they are, and the folder.
    """
    theirs = import_quietly(_TASK).yaml_no_alias_safe_dump

    def dump(values, stream, **options):
        return theirs(change(values, Path(stream.name).parent), stream, **options)

    return _patched(_TASK, yaml_no_alias_safe_dump=dump)


def opening_configs_by(complete: Callable[[dict[str, Any], Path], None]) -> None:
    """Let ESPnet's tasks complete a trained model's config before they build the model from it.

    ESPnet resolves no path of config.yaml, so that each is seen from the current folder. A second
    call changes nothing.

    Args:
        complete: ``complete(config, folder of config.yaml)``, which changes the config in place.
    """
    task = import_quietly(_TASK).AbsTask
    theirs = task.build_model_from_file.__func__
    if theirs.__module__ == __name__:
        return

    def build_model_from_file(cls, config_file=None, model_file=None, device="cpu"):
        place = Path(config_file or model_file or "").parent

        def build_model(args):
            complete(vars(args), place)
            return cls.build_model(args)

        opened = type(cls.__name__, (cls,), {"build_model": staticmethod(build_model)})
        return theirs(opened, config_file, model_file, device)

    task.build_model_from_file = classmethod(build_model_from_file)


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
