"""The only file that imports ESPnet names which are private or moving.

Importing it stays light: no ESPnet task (ten seconds, and attempts to download nltk data) is
imported before :func:`choices` is called.
"""

import contextlib
import importlib
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
from espnet2.lm.abs_model import AbsLM
from espnet2.schedulers.abs_scheduler import AbsBatchStepScheduler

try:
    from espnet.nets.pytorch_backend.transformer.subsampling import TooShortUttError
    from espnet.nets.scorer_interface import BatchScorerInterface
except ModuleNotFoundError:  # ESPnet after 202511 moved espnet.nets
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError
    from espnet2.legacy.nets.scorer_interface import BatchScorerInterface

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


def choices(slot):
    """Return ESPnet's own dict of yaml names and classes for a slot; what is put in is known.

    Args:
        slot: frontend, encoder, postencoder, decoder, model, lm, optim or scheduler.

    Raises:
        KeyError: no such slot.
    """
    module, name = _SLOTS[slot]
    found = getattr(import_quietly(module), name)
    return getattr(found, "classes", found)


def import_quietly(module_name):
    """Import an ESPnet module without its noise and without network access; return the module.

    ESPnet's tasks import ``g2p_en``, which at once looks for nltk data and tries to download
    it; it is imported here only when a phoneme tokenizer is really made. What other modules
    print or warn about while they are imported (an absent flash-attention) is kept away from
    the screen. An import that fails raises as usual.
    """
    _postpone_g2p()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        return importlib.import_module(module_name)


def _postpone_g2p():
    """Put a module that loads the true ``g2p_en`` when its ``G2p`` is asked for in its place."""
    if "g2p_en" in sys.modules:
        return
    spec = importlib.util.find_spec("g2p_en")
    if spec is None:
        return
    postponed = types.ModuleType("g2p_en")
    postponed.__spec__ = spec

    def load(name):
        if name != "G2p":
            raise AttributeError(f"module 'g2p_en' has no attribute {name!r}")
        if sys.modules.get("g2p_en") is postponed:
            del sys.modules["g2p_en"]
        return importlib.import_module("g2p_en").G2p

    postponed.__getattr__ = load
    sys.modules["g2p_en"] = postponed
