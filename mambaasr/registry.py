"""One plain dict a slot: yaml name -> "module:Class". The only writer of ESPnet's choices."""

import importlib

CLASSES: dict[str, dict[str, str]] = {
    "frontend": {"fbank": "mambaasr.frontend.fbank:Fbank"},
    "encoder": {
        "mamba": "mambaasr.encoder.mamba:MambaEncoder",
        "conmamba": "mambaasr.encoder.conmamba:ConMambaEncoder",
        "speech_mamba": "mambaasr.encoder.speech_mamba:SpeechMambaEncoder",
        "mamba_ebranchformer": "mambaasr.encoder.mamba_ebranchformer:MambaEBranchformerEncoder",
    },
    "postencoder": {"uma": "mambaasr.postencoder.uma:UMAPostEncoder"},
    "decoder": {
        "mamba": "mambaasr.decoder.mamba:MambaDecoder",
        "speech_mamba": "mambaasr.decoder.speech_mamba:SpeechMambaDecoder",
        "cross_mamba": "mambaasr.decoder.cross_mamba:CrossMambaDecoder",
        "madeon": "mambaasr.decoder.madeon:MadeonDecoder",
    },
    "scheduler": {
        "warmup_cosine": "mambaasr.optim.schedulers:WarmupCosine",
        "warmup_linear": "mambaasr.optim.schedulers:WarmupLinear",
    },
    "model": {
        "asr": "mambaasr.model.base:ASRModel",
        "multilingual": "mambaasr.model.multilingual:MultilingualModel",
    },
    "lm": {"mamba": "mambaasr.lm.mamba:MambaLM"},
}
# The slots that the LM task has; all but `lm` are the ASR task's.
_OF_LM = ("lm", "optim", "scheduler")


def of_task(task: str) -> dict[str, dict[str, str]]:
    """Return the part of :data:`CLASSES` that configs of a task may name, "asr" or "lm"."""
    if task == "lm":
        return {slot: found for slot, found in CLASSES.items() if slot in _OF_LM}
    return {slot: found for slot, found in CLASSES.items() if slot != "lm"}


def load(target: str) -> type:
    """Import ``"module:Class"`` and return the class."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def register() -> None:
    """Put every class into ESPnet's choices; a second call changes nothing.

    Besides, the files that a trained model's ``config.yaml`` names are looked for beside it.

    ESPnet reads its choices when a parser is built and again in ``build_model``, so call this
    before a parser or a ``Speech2Text`` is made.
    """
    from mambaasr import espnet_compat
    from mambaasr.beside import resolve

    espnet_compat.opening_configs_by(resolve)
    for slot, classes in CLASSES.items():
        choices = espnet_compat.choices(slot)
        for name, target in classes.items():
            choices[name] = load(target)
