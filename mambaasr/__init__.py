"""Speech recognition with state-space models, as a plugin of ESPnet."""

from typing import Any

__version__ = "0.2.0.dev0"


def register() -> None:
    """Make ESPnet know every class of this package by its yaml name. May be called twice."""
    from mambaasr.registry import register as register_with_espnet

    register_with_espnet()


def __getattr__(name: str) -> Any:
    # Not before it is asked for: it needs torch and ESPnet.
    if name == "SpeechRecognizer":
        from mambaasr.decode.speech_recognizer import SpeechRecognizer

        return SpeechRecognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
