"""The only file that imports ESPnet names which are private or moving.

Importing it stays light: no ESPnet task, which takes seconds, is imported before :func:`choices`
is called.
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import io
import sys
import types
import warnings

from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend
from espnet2.asr.postencoder.abs_postencoder import AbsPostEncoder
from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
from espnet2.legacy.nets.scorer_interface import BatchScorerInterface
from espnet2.lm.abs_model import AbsLM
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler

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
    "choices",
]

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


def choices(slot: str) -> dict:
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


def _provide_editdistance():
    """Give ESPnet, for the error rates in training, an ``editdistance`` where there is none.

    The package has no wheels for Python 3.13; rapidfuzz, which does, counts the same.
    """
    if "editdistance" in sys.modules or importlib.util.find_spec("editdistance"):
        return
    from rapidfuzz.distance import Levenshtein

    module = types.ModuleType("editdistance")
    module.__spec__ = importlib.machinery.ModuleSpec("editdistance", None)
    module.eval = module.distance = Levenshtein.distance
    sys.modules["editdistance"] = module
