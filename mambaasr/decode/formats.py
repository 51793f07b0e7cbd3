"""Transcripts as files: txt, json, srt, vtt, tsv, ctm, stm."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mambaasr.decode.transcript import Segment, Transcript, Word, join
from mambaasr.files import atomic_write


@dataclass(frozen=True)
class Layout:
    """How subtitles are broken, and what the JSON has.

    Attributes:
        max_line_width: characters a line; None: a segment is a subtitle of one line.
        max_line_count: lines a subtitle; None: as many as its segment needs.
        words: whether there are words in the JSON.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    words: bool = True


@dataclass(frozen=True)
class _Subtitle:
    start: float
    end: float
    lines: list[str]


def write(
    transcript: Transcript,
    path: Path,
    formats: Sequence[str],
    layout: Layout = Layout(),
    more: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write a transcript in several formats; each file appears whole.

    Args:
        transcript: of a recording.
        path: without suffix: that of the format is added.
        formats: keys of :data:`FORMATS`.
        layout: of subtitles.
        more: what the JSON holds besides, such as the model.

    Returns:
        The files.

    Raises:
        UserError: one cannot be written.
    """
    written = []
    for name in formats:
        text = FORMATS[name](transcript, layout)
        if name == "json":
            text = as_json(transcript, layout, more)
        written.append(path.with_name(f"{path.name}.{name}"))
        with atomic_write(written[-1]) as stream:
            stream.write(text)
    return written


def as_json(
    transcript: Transcript, layout: Layout = Layout(), more: Mapping[str, Any] | None = None
) -> str:
    """Return a transcript as Whisper's JSON, with what else there is to say."""
    content = {"name": transcript.name, **transcript.as_dict(layout.words), **(more or {})}
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def _txt(transcript: Transcript, layout: Layout) -> str:
    return "".join(f"{each.text}\n" for each in transcript.segments if each.text)


def _srt(transcript: Transcript, layout: Layout) -> str:
    """SubRip: numbered, times with a comma."""
    return "".join(
        f"{number}\n{_clock(each.start, ',')} --> {_clock(each.end, ',')}\n"
        + "".join(f"{line}\n" for line in each.lines)
        + "\n"
        for number, each in enumerate(_subtitles(transcript, layout), 1)
    )


def _vtt(transcript: Transcript, layout: Layout) -> str:
    """WebVTT; its marks are escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(each.start, '.')} --> {_clock(each.end, '.')}\n"
        + "".join(f"{_escaped(line)}\n" for line in each.lines)
        + "\n"
        for each in _subtitles(transcript, layout)
    )


def _tsv(transcript: Transcript, layout: Layout) -> str:
    """Whisper's: start and end in milliseconds, text."""
    return "start\tend\ttext\n" + "".join(
        f"{round(1000 * each.start)}\t{round(1000 * each.end)}\t{each.text}\n"
        for each in transcript.segments
        if each.text
    )


def _ctm(transcript: Transcript, layout: Layout) -> str:
    """NIST's: recording, channel, start, duration, word, confidence."""
    name = _one_word(transcript.name)
    return "".join(
        f"{name} 1 {word.start:.3f} {word.end - word.start:.3f} {word.word} {word.confidence:.3f}\n"
        for word in transcript.words
    )


def _stm(transcript: Transcript, layout: Layout) -> str:
    """NIST's: recording, channel, speaker, start, end, text."""
    name = _one_word(transcript.name)
    return "".join(
        f"{name} 1 {name} {each.start:.3f} {each.end:.3f} {each.text}\n"
        for each in transcript.segments
        if each.text
    )


FORMATS: dict[str, Callable[[Transcript, Layout], str]] = {
    "txt": _txt,
    "json": as_json,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
    "ctm": _ctm,
    "stm": _stm,
}


def _subtitles(transcript: Transcript, layout: Layout) -> Iterator[_Subtitle]:
    """Yield subtitles, none overlapping the next."""
    found: list[_Subtitle] = []
    for segment in transcript.segments:
        if segment.text:
            found += _of_segment(segment, layout)
    after = [each.start for each in found[1:]]
    for each, next_start in zip(found, [*after, math.inf], strict=False):
        end = min(each.end, max(next_start, each.start))
        yield _Subtitle(each.start, max(end, each.start + 0.001), each.lines)


def _of_segment(segment: Segment, layout: Layout) -> list[_Subtitle]:
    if layout.max_line_width is None:
        return [_Subtitle(segment.start, segment.end, [segment.text])]
    words: Sequence[Word] = segment.words
    if not words:  # without times of words: all at the segment's time
        texts = segment.text.split()
        words = [Word(text, segment.start, segment.end, 0.0) for text in texts]
    lines: list[list[Word]] = [[]]
    for word in words:
        if lines[-1] and len(_line([*lines[-1], word])) > layout.max_line_width:
            lines.append([])
        lines[-1].append(word)
    count = layout.max_line_count or len(lines)
    return [
        _Subtitle(some[0][0].start, some[-1][-1].end, [_line(each) for each in some])
        for some in (lines[i : i + count] for i in range(0, len(lines), count))
    ]


def _line(words: Sequence[Word]) -> str:
    return join(word.word for word in words)


def _clock(seconds: float, mark: str) -> str:
    whole = round(1000 * seconds)
    hours, whole = divmod(whole, 3_600_000)
    minutes, whole = divmod(whole, 60_000)
    return f"{hours:02d}:{minutes:02d}:{whole // 1000:02d}{mark}{whole % 1000:03d}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _one_word(name: str) -> str:
    return re.sub(r"[\s/]+", "_", name) or "-"
