"""The only file that imports ESPnet names which are private or moving.

Importing it stays light: no ESPnet task (ten seconds, and attempts to download nltk data) is
imported before :func:`choices` is called.
"""

import importlib

from espnet2.asr.ctc import CTC
from espnet2.asr.decoder.abs_decoder import AbsDecoder
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.frontend.abs_frontend import AbsFrontend

try:
    from espnet.nets.scorer_interface import BatchScorerInterface
except ModuleNotFoundError:  # ESPnet after 202511 moved espnet.nets
    from espnet2.legacy.nets.scorer_interface import BatchScorerInterface

__all__ = [
    "AbsDecoder",
    "AbsEncoder",
    "AbsFrontend",
    "BatchScorerInterface",
    "CTC",
    "choices",
]

_ASR = "espnet2.tasks.asr"
_LM = "espnet2.tasks.lm"
_TASK = "espnet2.tasks.abs_task"

# slot -> (module, name of a ClassChoices or of a plain dict in it)
_SLOTS = {
    "frontend": (_ASR, "frontend_choices"),
    "encoder": (_ASR, "encoder_choices"),
    "decoder": (_ASR, "decoder_choices"),
    "model": (_ASR, "model_choices"),
    "lm": (_LM, "lm_choices"),
    "optim": (_TASK, "optim_classes"),
    "scheduler": (_TASK, "scheduler_classes"),
}


def choices(slot):
    """Return ESPnet's own dict of yaml names and classes for a slot; what is put in is known.

    Args:
        slot: frontend, encoder, decoder, model, lm, optim or scheduler.

    Raises:
        KeyError: no such slot.
    """
    module, name = _SLOTS[slot]
    found = getattr(importlib.import_module(module), name)
    return getattr(found, "classes", found)
