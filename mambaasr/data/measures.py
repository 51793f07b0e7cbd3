"""What is known of an utterance's audio once it was read, and warnings about a set of it.

``audio.tsv`` in a formatted folder keeps the measures that are compared between sets.
"""

import hashlib
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from mambaasr.files import atomic_write

if TYPE_CHECKING:
    import numpy as np

    from mambaasr.data.audio import Sound

NAME = "audio.tsv"
# A shout may reach full scale for a few samples.
_CLIPPED = 1e-3
_SILENCE = -120.0


class Measures(NamedTuple):
    """Of one utterance; for the first four see :class:`mambaasr.data.audio.Sound`.

    ``level`` is the mean power [dB below full scale], ``digest`` tells samples apart.
    """

    native_rate: int
    clipped: float
    apart: float
    left: float
    level: float
    digest: str

    def to_text(self) -> str:
        """Return it as one line."""
        return json.dumps(self)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return what :meth:`to_text` has written."""
        return cls(*json.loads(text))


def measure(sound: "Sound", samples: "np.ndarray") -> Measures:
    """Return the measures of a sound and of what was made of it, float ``(time,)``."""
    import numpy as np

    power = float(np.square(samples, dtype=np.float64).mean())
    level = max(_SILENCE, 10 * math.log10(power)) if power else _SILENCE
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    digest = hashlib.blake2b(whole.tobytes(), digest_size=8).hexdigest()
    parts = (sound.clipped, sound.apart, sound.left, level)
    return Measures(sound.native_rate, *(round(part, 4) for part in parts), digest)


def warn(in_dir: str | Path, measures: Mapping[str, Measures], rate: int | None = None) -> None:
    """Say once for a set what a listener would have heard.

    Args:
        in_dir: the data folder, for the message.
        measures: of its utterances or recordings.
        rate: sampling rate that was asked for [Hz].
    """

    from mambaasr.data.audio import APART

    def say(utts: list[str], what: str, remedy: str) -> None:
        if utts:
            some = f"{len(utts)} of {len(measures)} (first {utts[0]})"
            logging.warning(f"{in_dir}: {what} in {some}: {remedy}")

    apart = [utt for utt, one in measures.items() if one.apart > APART]
    gone = [utt for utt in apart if measures[utt].left < APART]
    say(
        [utt for utt in apart if utt not in set(gone)],
        "channels that differ were averaged",
        "if each is a speaker or a microphone, choose by --channel 1 or reco2file_and_channel",
    )
    say(
        gone,
        "channels that cancel out were averaged, and next to nothing is left",
        "one of them is inverted: take one by --channel 1 or reco2file_and_channel",
    )
    say(
        [utt for utt, one in measures.items() if rate and one.native_rate < rate],
        f"audio below {rate} Hz",
        "nothing is there above half its own rate; --fs of that rate fits if most is such, and "
        "no model for such audio should be trained on other",
    )
    say(
        [utt for utt, one in measures.items() if one.clipped > _CLIPPED],
        f"more than {_CLIPPED:.1%} of the samples at full scale",
        "the recording is clipped",
    )


def write_measures(folder: str | Path, measures: Mapping[str, Measures]) -> None:
    """Write ``audio.tsv``: utterance, level, digest."""
    with atomic_write(Path(folder, NAME)) as stream:
        for utt, one in sorted(measures.items()):
            stream.write(f"{utt}\t{one.level}\t{one.digest}\n")


def read_measures(folder: str | Path) -> dict[str, tuple[float, str]]:
    """Return utterance -> level and digest; nothing where an older version formatted the folder."""
    try:
        lines = Path(folder, NAME).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    rows = (line.split("\t") for line in lines)
    return {utt: (float(level), digest) for utt, level, digest in rows}
