"""What is recognised of a recording."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

# Thai, Lao, Myanmar, Khmer, marks and kana, Han, forms as wide as these: not Hangul.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
)


class Word(NamedTuple):
    """A word: when it is said [s], and how sure CTC is of it, 0 ... 1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(slots=True)
class Segment:
    """A piece of a recording.

    Attributes:
        id: from 0.
        start, end: seconds.
        text: the best hypothesis.
        words: of it; empty for a model without CTC.
        score: of the search, and of how many tokens it is the sum.
        nbest: (text, score) of all hypotheses asked for, best first.
        language: that a model found, or None.
        error: why there is no text.
    """

    id: int
    start: float
    end: float
    text: str = ""
    words: list[Word] = field(default_factory=list)
    score: float = 0.0
    tokens: int = 0
    nbest: list[tuple[str, float]] = field(default_factory=list)
    language: str | None = None
    error: str | None = None

    @property
    def avg_logprob(self) -> float:
        """The score a token, with the end of the text as one."""
        return self.score / (self.tokens + 1)


@dataclass(slots=True)
class Transcript:
    """What is recognised of a recording.

    Attributes:
        name: of the recording: its path, or its place among what was given.
        segments: its pieces, in their order; stretches without speech are in none.
        duration: of the recording [s].
        seconds: of computing.
        long: how it was cut: "one_pass", "windows" or "vad".
        language: that was given, or that the model found in most of it, or None.
        error: why there is no transcript, or none of some of its segments.
    """

    name: str
    segments: list[Segment] = field(default_factory=list)
    duration: float = 0.0
    seconds: float = 0.0
    long: str = "one_pass"
    language: str | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        """The whole text."""
        return join(each.text for each in self.segments)

    @property
    def words(self) -> list[Word]:
        """All words."""
        return [word for each in self.segments for word in each.words]

    @property
    def rtf(self) -> float | None:
        """Seconds of computing a second of audio."""
        return self.seconds / self.duration if self.duration else None

    def as_dict(self, words: bool = True) -> dict[str, Any]:
        """Return plain values, under the names of Whisper's JSON where the meaning is the same.

        Args:
            words: whether to give the words.
        """
        return {
            "text": self.text,
            "language": self.language,
            "duration": round(self.duration, 3),
            "long": self.long,
            "rtf": self.rtf,
            "error": self.error,
            "segments": [
                {
                    "id": each.id,
                    "start": round(each.start, 3),
                    "end": round(each.end, 3),
                    "text": each.text,
                    "avg_logprob": each.avg_logprob,
                    "language": each.language,
                    "error": each.error,
                    "nbest": [{"text": text, "score": score} for text, score in each.nbest],
                    "words": [
                        {
                            "word": word.word,
                            "start": round(word.start, 3),
                            "end": round(word.end, 3),
                            "probability": round(word.confidence, 4),
                        }
                        for word in (each.words if words else ())
                    ],
                }
                for each in self.segments
            ],
        }


def join(texts: Iterable[str]) -> str:
    """Join the texts of neighbours; between characters of scripts without spaces comes none."""
    whole = ""
    for text in filter(None, texts):
        close = _WITHOUT_SPACES.match(whole[-1:]) and _WITHOUT_SPACES.match(text)
        whole += text if close or not whole else f" {text}"
    return whole
