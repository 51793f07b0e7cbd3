"""What leaderboards make of a reference and a hypothesis before they count errors."""

import importlib
import string
from collections.abc import Callable
from importlib import metadata

from mambaasr.errors import UserError

# Class of the package whisper-normalizer, which has Whisper's own rules.
_WHISPER = {
    "whisper_english": ("whisper_normalizer.english", "EnglishTextNormalizer"),
    "whisper_basic": ("whisper_normalizer.basic", "BasicTextNormalizer"),
}
# What SpeechColab leaves out at scoring (utils/gigaspeech_scoring.py of its repository): fillers,
# the unknown word, marks of punctuation, and what stands for a stretch without speech.
_GIGASPEECH = frozenset(
    "UH UHH UM EH MM HM AH HUH HA ER OOF HEE ACH EEE EW <UNK> <COMMA> <PERIOD> <QUESTIONMARK> "
    "<EXCLAMATIONPOINT> <SIL> <NOISE> <MUSIC> <OTHER>".split()
)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def gigaspeech(text: str) -> str:
    """Return a text in capitals, compounds apart, without fillers and tags."""
    words = text.upper().replace("-", " ").split()
    return " ".join(word for word in words if word not in _GIGASPEECH)


def spgispeech(text: str) -> str:
    """Return a text in small letters without punctuation, as SPGISpeech is scored unformatted."""
    return " ".join(text.translate(_NO_PUNCTUATION).lower().split())


_OURS = {"gigaspeech": gigaspeech, "spgispeech": spgispeech}
NORMALIZERS = ("none", *_WHISPER, *_OURS)


def find_normalizer(name: str) -> tuple[Callable[[str], str], str]:
    """Return a function from text to text, and how to name it where it comes from a package.

    Args:
        name: one of :data:`NORMALIZERS` but "none".

    Raises:
        UserError: there is none of this name, or its package cannot be imported.
    """
    if name in _OURS:
        return _OURS[name], name
    if name not in _WHISPER:
        raise UserError(f"there is no normalizer {name!r}; there are: {', '.join(NORMALIZERS)}")
    module, class_name = _WHISPER[name]
    try:
        normalize = getattr(importlib.import_module(module), class_name)()
    except ImportError as error:
        raise UserError(
            f"the normalizer {name} comes with whisper-normalizer, which cannot be imported "
            f"({error}): uv pip install whisper-normalizer"
        ) from None
    return normalize, f"{name} (whisper-normalizer {metadata.version('whisper-normalizer')})"
