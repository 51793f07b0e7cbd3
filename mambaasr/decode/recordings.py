"""What is to be transcribed: files, folders, lists, data folders; each with a name of its own."""

import glob
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from mambaasr.errors import UserError

# What is taken of a folder: names that audio has; what they hold is looked at when they are read.
SUFFIXES = frozenset(
    ".aac .aif .aiff .amr .au .caf .flac .m4a .m4b .mka .mkv .mov .mp3 .mp4 .oga .ogg .opus .sph "
    ".w64 .wav .webm .wma".split()
)
STDIN = "-"


class Clip(NamedTuple):
    """A stretch of a recording [s]; end None is the recording's end."""

    start: float = 0.0
    end: float | None = None


WHOLE = (Clip(),)


@dataclass(frozen=True)
class Recording:
    """A file, or clips of one.

    Attributes:
        path: any file that :mod:`mambaasr.data.audio` reads.
        name: of its transcript.
        clips: what is transcribed of it.
        channel: from 1; None is the average of all.
        language: for a model that is given it.
    """

    path: str | Path
    name: str
    clips: tuple[Clip, ...] = WHOLE
    channel: int | None = None
    language: str | None = None


def find_recordings(
    inputs: Sequence[str],
    clips: tuple[Clip, ...] = WHOLE,
    channel: int | None = None,
    language: str | None = None,
) -> tuple[list[Recording], list[str]]:
    """Return the recordings that a command line names.

    Args:
        inputs: files; folders, with all audio below them; patterns (``talks/*.mp3``); ``@FILE``, a
            list of inputs, one a line; ``-``, standard input; data folders (with a wav.scp), whose
            utterances they are.
        clips, channel, language: of all recordings; a data folder has its own.

    Returns:
        The recordings, each once, their names different; and why nothing is taken of an input.
    """
    found: dict[object, Recording] = {}
    problems: list[str] = []
    common = Recording("", "", clips, channel, language)
    for text in inputs:
        try:
            several = list(_find(text, common))
        except UserError as error:
            problems.append(str(error))
            continue
        for each, utterance in several:
            # Utterances of a data folder may share a file.
            found.setdefault((os.path.abspath(each.path), each.clips, utterance), each)
    return _named(list(found.values())), problems


def _find(
    text: str, common: Recording, lists: tuple[str, ...] = ()
) -> Iterator[tuple[Recording, str | None]]:
    """Yield the recordings of an input, and the ids of those that are a data folder's utterances.

    Args:
        text: the input.
        common: what all of them share.
        lists: in which it is named.
    """
    path = Path(text)
    if text == STDIN:
        yield replace(common, path=STDIN, name="stdin"), None
    elif text.startswith("@") and not path.exists():
        if text in lists:
            raise UserError(f"{text[1:]}: this list names itself")
        try:
            lines = Path(text[1:]).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{text[1:]}: this list cannot be read: {error}") from None
        for line in filter(None, map(str.strip, lines)):
            yield from _find(line, common, (*lists, text))
    elif path.is_dir() and (path / "wav.scp").is_file():
        yield from _utterances(path, common)
    elif path.is_dir():
        files = sorted(filter(_is_audio, path.rglob("*")))
        if not files:
            raise UserError(f"{path}: there is no audio below this folder")
        for file in files:
            name = file.relative_to(path).with_suffix("").as_posix()
            yield replace(common, path=str(file), name=name), None
    elif path.is_file() or not glob.has_magic(text):
        # What is missing is reported when it is read, as what is damaged.
        yield replace(common, path=text, name=path.stem), None
    else:
        files = sorted(map(Path, glob.glob(text, recursive=True)))
        if not files:
            raise UserError(f"{text}: no file fits this pattern")
        for file in files:
            yield replace(common, path=str(file), name=file.stem), None


def _is_audio(file: Path) -> bool:
    # Some systems put files of their own beside others, whose names begin with a dot.
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _utterances(path: Path, common: Recording) -> Iterator[tuple[Recording, str]]:
    """Yield the utterances of a data folder; neither texts nor speakers are needed."""
    from mambaasr.data.folder import parse_channel, parse_segment
    from mambaasr.data.kaldi_file import parse_name, parse_path, read_good_table

    wavs = read_good_table(path / "wav.scp", parse_path)
    languages, segments, channels = {}, {}, {}
    if (path / "utt2lang").is_file():
        languages = read_good_table(path / "utt2lang", parse_name)
    if (path / "segments").is_file():
        segments = read_good_table(path / "segments", parse_segment)
    if (path / "reco2file_and_channel").is_file():
        channels = read_good_table(path / "reco2file_and_channel", parse_channel)
    for utt in segments or wavs:
        wav, clips = utt, WHOLE
        if utt in segments:
            wav, clips = segments[utt].recording, (Clip(segments[utt].start, segments[utt].end),)
        if wav not in wavs:
            raise UserError(f"{path}/segments: {utt}: there is no {wav} in wav.scp")
        each = replace(common, path=wavs[wav], name=utt, clips=clips)
        if wav in channels and common.channel is None:
            each = replace(each, channel=channels[wav].number)
        yield replace(each, language=languages.get(utt, common.language)), utt


def _named(found: list[Recording]) -> list[Recording]:
    """Give recordings of one name different ones: with the suffix, or a number."""
    numbered = False
    while len(count := Counter(each.name for each in found)) < len(found):
        for number, each in enumerate(found):
            if count[each.name] > 1:
                more = f"_{number + 1}" if numbered else Path(each.path).suffix
                found[number] = replace(each, name=each.name + more)
        numbered = True
    return found


def parse_clips(text: str) -> tuple[Clip, ...]:
    """Return the clips of Whisper's ``start,end,start,end,...`` [s]; the last end may be left out.

    Raises:
        ValueError: these are no ascending times, or a clip is empty.
    """
    times = [float(part) for part in text.split(",")]
    empty = any(start == end for start, end in zip(times[::2], times[1::2], strict=False))
    if times != sorted(times) or times[0] < 0 or empty or not all(map(math.isfinite, times)):
        raise ValueError("the times must ascend from 0")
    ends: list[float | None] = [*times[1::2]]
    if len(times) % 2:
        ends.append(None)
    return tuple(Clip(start, end) for start, end in zip(times[::2], ends, strict=True))
