"""Kaldi-style data folders: read, check, fix and write.

A folder holds

=========================  ==================================================================
``wav.scp``                recording, path of an audio file (never a command), also
                           ``path.ark:offset`` in an archive
``feats.scp``              instead of it: utterance, ``path.ark:offset`` of its features
``segments``               utterance, recording, start, end [s]; optional, else one utterance a file
``text``                   utterance, transcript (may be empty)
``utt2spk``                utterance, speaker
``spk2utt``                speaker, utterances: written as ``utt2spk`` says, never read
``utt2lang``               utterance, language; optional
``utt2num_samples``        utterance, length in samples; optional, written by formatting
``feats_shape``            utterance, frames and bins of its features: ``520,80``; optional, written
                           by formatting
``reco2file_and_channel``  recording, a name, channel to take (A or 1, B or 2); optional: where
                           there are several, and of what is not named the average
=========================  ==================================================================

Where there is a ``feats.scp`` and no ``wav.scp``, ``segments`` and ``reco2file_and_channel`` are
not read: they are of recordings that the features were made of.

Files are UTF-8, sorted by id as in the C locale. Relative audio paths start at the current
directory, as in Kaldi.
"""

import contextlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from mambaasr.data.ark import file_of
from mambaasr.data.dropped import Dropped, read_report, write_report
from mambaasr.data.kaldi_file import (
    Problem,
    Table,
    parse_count,
    parse_name,
    parse_path,
    parse_text,
    read_table,
    write_table,
)
from mambaasr.errors import UserError

WAVS, FEATURES = "wav.scp", "feats.scp"
REQUIRED = ("text", "utt2spk")
OPTIONAL = ("segments", "utt2lang", "utt2num_samples", "reco2file_and_channel", "feats_shape")
# These name recordings, the others utterances.
_OF_RECORDINGS = (WAVS, "reco2file_and_channel")
_NOT_OF_FEATURES = ("segments", "reco2file_and_channel")


class Segment(NamedTuple):
    """A stretch of a recording: start and end in seconds; end None is the recording's end."""

    recording: str
    start: float
    end: float | None

    def __str__(self) -> str:
        # repr keeps every digit: a segment read and written again is the same segment.
        return f"{self.recording} {self.start!r} {-1 if self.end is None else repr(self.end)}"


def parse_segment(value: str) -> Segment:
    """Return a :class:`Segment` from ``recording start end``; Kaldi's end -1 is the file's end."""
    columns = value.split()
    remedy = "write 'utterance recording start end', times in seconds, ids without spaces"
    if len(columns) != 3:
        raise ValueError(f"{len(columns) + 1} columns instead of 4", remedy)
    try:
        start, end = float(columns[1]), float(columns[2])
    except ValueError:
        raise ValueError(f"{columns[1]!r} or {columns[2]!r} is not a time", remedy) from None
    if not (math.isfinite(start) and math.isfinite(end)):
        raise ValueError(f"{columns[1]!r} or {columns[2]!r} is not a time", remedy)
    end = None if end == -1 else end
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"a segment from {start:g} s to {columns[2]} s", "start before the end")
    return Segment(columns[0], start, end)


class Channel(NamedTuple):
    """A channel of a recording, after Kaldi; the name that scoring would use for it is kept."""

    file: str
    channel: str

    def __str__(self) -> str:
        return f"{self.file} {self.channel}"

    @property
    def number(self) -> int:
        """From 1."""
        return int(self.channel) if self.channel.isdigit() else ord(self.channel.upper()) - 64


def parse_channel(value: str) -> Channel:
    """Return a :class:`Channel` from ``name channel``."""
    columns = value.split()
    if len(columns) != 2 or not re.fullmatch("[A-Za-z]|[1-9][0-9]*", columns[-1]):
        raise ValueError(
            f"{value!r} is no name and channel",
            "write 'recording name channel', the channel A or 1, B or 2, ...",
        )
    return Channel(*columns)


def parse_shape(value: str) -> str:
    """Return ``frames,bins`` as it is."""
    if not re.fullmatch("[0-9]+,[0-9]+", value):
        raise ValueError(f"{value!r} is no shape", "write 'utterance frames,bins'")
    return value


PARSERS = {
    WAVS: parse_path,
    FEATURES: parse_path,
    "segments": parse_segment,
    "text": parse_text,
    "utt2spk": parse_name,
    "utt2lang": parse_name,
    "utt2num_samples": parse_count,
    "reco2file_and_channel": parse_channel,
    "feats_shape": parse_shape,
}


@dataclass
class DataFolder:
    """The contents of a data folder.

    Attributes:
        wav: recording -> path; of a folder of features: utterance -> their place.
        text: utterance -> transcript.
        utt2spk: utterance -> speaker.
        segments: utterance -> :class:`Segment`, or None: then recordings are utterances.
        utt2lang: utterance -> language, or None.
        utt2num_samples: utterance -> length, or None.
        channels: recording -> :class:`Channel`, or None.
        shapes: utterance -> frames and bins, as a text, or None.
        path: where it was read.
        scp: name of the file of ``wav``: ``wav.scp`` or ``feats.scp``.
    """

    wav: dict[str, str] = field(default_factory=Table)
    text: dict[str, str] = field(default_factory=Table)
    utt2spk: dict[str, str] = field(default_factory=Table)
    segments: dict[str, Segment] | None = None
    utt2lang: dict[str, str] | None = None
    utt2num_samples: dict[str, int] | None = None
    channels: dict[str, Channel] | None = None
    shapes: dict[str, str] | None = None
    path: Path | None = None
    scp: str = WAVS

    @classmethod
    def read(cls, path: str | Path, scp: str | None = None) -> Self:
        """Read a folder that must be right; the audio files are not looked at.

        Args:
            path: the folder.
            scp: see :meth:`scan`.

        Raises:
            UserError: the first problem, with file, line and remedy, and how many more there are.
        """
        folder, problems = cls.scan(path, scp)
        if problems:
            more = f" ({len(problems) - 1} more problems)" if len(problems) > 1 else ""
            raise UserError(
                f"{problems[0]}{more}. To see them all: mambaasr check_data '{path}'; to drop such "
                "utterances: add --fix"
            )
        return folder

    @classmethod
    def scan(cls, path: str | Path, scp: str | None = None) -> tuple[Self, list[Problem]]:
        """Read a folder that may be wrong.

        Args:
            path: the folder.
            scp: ``wav.scp`` or ``feats.scp``; None: ``feats.scp`` where no ``wav.scp`` is.

        Returns:
            The folder with the lines that could be read, and a list of :class:`Problem`.

        Raises:
            UserError: the folder, or a file it needs, is missing or has no lines.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"{path}: no such data folder; run stage 1, or name the right folder")
        tables, problems = {}, []
        if scp is None:
            alone = (path / FEATURES).is_file() and not (path / WAVS).is_file()
            scp = FEATURES if alone else WAVS
        unread = {WAVS, FEATURES} - {scp}
        if scp == FEATURES:
            unread.update(_NOT_OF_FEATURES)
        for name in (scp, *REQUIRED):
            state = _no_file(path / name)
            if state:
                raise UserError(f"{path / name}: {state}; write it, one 'id value' a line")
        segmented = (path / "segments").is_file()
        for name, parse in PARSERS.items():
            if name not in unread and (path / name).is_file():
                keyed = name not in _OF_RECORDINGS or not segmented
                tables[name] = read_table(path / name, parse, problems, keyed)
        folder = cls(
            tables[scp],
            tables["text"],
            tables["utt2spk"],
            *(tables.get(name) for name in OPTIONAL),
            path=path,
            scp=scp,
        )
        problems += folder._disagreements(problems)
        return folder, problems

    def tables(self) -> dict[str, dict[str, Any]]:
        """Return the tables that the folder has, by file name."""
        names = {
            self.scp: self.wav,
            "text": self.text,
            "utt2spk": self.utt2spk,
            "segments": self.segments,
            "utt2lang": self.utt2lang,
            "utt2num_samples": self.utt2num_samples,
            "reco2file_and_channel": self.channels,
            "feats_shape": self.shapes,
        }
        return {name: table for name, table in names.items() if table is not None}

    @property
    def has_features(self) -> bool:
        """Whether it names features instead of audio."""
        return self.scp == FEATURES

    @property
    def audio(self) -> dict[str, Any]:
        """The table of the utterances that have audio, or features: ``segments``, or ``wav``."""
        return self.wav if self.segments is None else self.segments

    @property
    def utterances(self) -> list[str]:
        """The sorted ids of the utterances that have audio."""
        return sorted(self.audio)

    @property
    def spk2utt(self) -> dict[str, list[str]]:
        """Speaker -> sorted list of utterances."""
        speakers = {}
        for utt in sorted(self.utt2spk):
            speakers.setdefault(self.utt2spk[utt], []).append(utt)
        return speakers

    def source(self, utt: str) -> tuple[str, float, float | None]:
        """Return the audio path, start and end [s or None] of an utterance."""
        if self.segments is None:
            return self.wav[utt], 0.0, None
        recording, start, end = self.segments[utt]
        return self.wav[recording], start, end

    def recording(self, utt: str) -> str:
        """Return the recording in which an utterance lies."""
        return utt if self.segments is None else self.segments[utt].recording

    def channel_of(self, recording: str) -> int | None:
        """Return the channel to take of a recording, from 1, or None."""
        chosen = (self.channels or {}).get(recording)
        return None if chosen is None else chosen.number

    def channel(self, utt: str) -> int | None:
        """Return the channel to take for an utterance, from 1, or None."""
        return self.channel_of(self.recording(utt))

    def where(self, utt: str) -> str:
        """Return ``file:line`` of the entry that names an utterance's audio."""
        return _where(self.audio, utt)

    def _disagreements(self, known: list[Problem]) -> list[Problem]:
        """Return where the files contradict each other; ids of known problems are left out."""
        named = {problem.key for problem in known}
        problems = []

        def report(table: dict[str, Any], key: str, reason: str, remedy: str) -> None:
            if key not in named:
                named.add(key)
                problems.append(Problem(_where(table, key), f"{key}: {reason}", remedy, key))

        for utt, segment in (self.segments or {}).items():
            if segment.recording not in self.wav:
                reason = f"recording {segment.recording!r} is missing or unusable in wav.scp"
                report(self.segments, utt, reason, "add it, or remove the segment")
        for utt in self.audio:
            if utt not in self.text:
                report(self.audio, utt, "no transcript in text", "add it, or remove the audio")
            if utt not in self.utt2spk:
                report(self.audio, utt, "no speaker in utt2spk", "add 'utterance speaker'")
            for name in ("utt2lang", "utt2num_samples", "feats_shape"):
                table = self.tables().get(name)
                if table is not None and utt not in table:
                    report(self.audio, utt, f"not in {name}", f"add it, or remove {name}")
        # Formatting a test set keeps the transcripts of unreadable audio and reports them: they
        # count as deleted words.
        reported = {row.utt for row in read_report(self.path)}
        for name in ("text", "utt2spk", "utt2lang", "utt2num_samples", "feats_shape"):
            table = self.tables().get(name) or {}
            for utt in table:
                if utt not in self.audio and utt not in reported:
                    report(table, utt, "no audio", f"add it to {self.scp}, or remove the line")
        return problems

    def missing_audio(self) -> list[Problem]:
        """Return a problem for each utterance whose file is not there or has no bytes."""
        # Many lie in one archive.
        files = {rec: file_of(path) for rec, path in self.wav.items()}
        bad = {file: reason for file in set(files.values()) if (reason := _no_file(file))}
        reasons = {rec: bad[file] for rec, file in files.items() if file in bad}
        problems = []
        for utt in self.utterances:
            recording = self.recording(utt)
            if recording in reasons:
                reason = f"{utt}: {self.wav[recording]}: {reasons[recording]}"
                remedy = "restore the file, or correct the path (relative to the current directory)"
                problems.append(Problem(_where(self.wav, recording), reason, remedy, utt))
        return problems

    def select(self, utts: Iterable[str]) -> "DataFolder":
        """Return a folder with some of the utterances; recordings without any are left out."""
        utts = [utt for utt in utts if utt in self.audio]
        recordings = utts
        if self.segments is not None:
            recordings = sorted({self.segments[utt].recording for utt in utts})
        tables = {
            name: _select(table, recordings if name in _OF_RECORDINGS else utts)
            for name, table in self.tables().items()
        }
        return DataFolder(
            tables[self.scp],
            tables["text"],
            tables["utt2spk"],
            *(tables.get(name) for name in OPTIONAL),
            path=self.path,
            scp=self.scp,
        )

    def write(self, path: str | Path) -> None:
        """Write the folder's files, each whole or not at all, and remove optional ones it lacks.

        All are written beside the old ones first, so that an error leaves those as they were. The
        tables that name the audio come last: a kill between two files leaves utterances without
        a transcript, which is a problem that reading finds.

        Raises:
            UserError: an id or a path cannot stand in such a file, or the disk is full.
        """
        path = Path(path)
        speakers = {speaker: " ".join(utts) for speaker, utts in self.spk2utt.items()}
        tables = {**self.tables(), "spk2utt": speakers}
        with _new_folder(path, ".new") as new:
            for name, table in tables.items():
                write_table(new / name, table)
            for name in sorted(tables, key=(self.scp, "segments").__contains__):
                os.replace(new / name, path / name)
            kept = _NOT_OF_FEATURES if self.has_features else ()
            for name in set(OPTIONAL) - {*tables, *kept}:
                (path / name).unlink(missing_ok=True)


def fix(folder: DataFolder, problems: list[Problem]) -> tuple[int, int]:
    """Drop the utterances of a folder that have problems, and rewrite its files.

    The files as they were are kept in ``.backup`` in the folder (``.backup.2``, ... at the next
    times); ``report.tsv`` there names what was dropped and why.

    Args:
        folder: a folder as :meth:`DataFolder.scan` returned it.
        problems: its problems from there, and others, such as
            :meth:`DataFolder.missing_audio` finds, whose utterances shall go too.

    Returns:
        Numbers of utterances kept and dropped.

    Raises:
        UserError: no utterance would be left, or the folder cannot be written.
    """
    path = folder.path
    bad = {problem.key for problem in problems if problem.key is not None}
    kept = [utt for utt in folder.utterances if utt not in bad]
    if not kept:
        raise UserError(f"{path}: every utterance has a problem, the first: {problems[0]}")
    good = folder.select(kept)
    earlier = read_report(path)
    references = {row.utt for row in earlier} - set(folder.audio)
    for name in ("text", "utt2spk", "utt2lang"):
        table = folder.tables().get(name, {})
        good.tables().get(name, {}).update(
            {utt: table[utt] for utt in references & set(table) if utt not in bad}
        )
    # Rows of an earlier, interrupted fix stay: its reasons are the true ones.
    earlier = [row for row in earlier if row.utt not in good.audio]
    known = {row.utt for row in earlier if row.utt is not None}
    rows = [Dropped(p.key, p.where, p.reason) for p in problems if p.key not in known]
    _back_up(path)
    write_report(path, earlier + [row for row in rows if row not in earlier])
    good.write(path)
    return len(kept), len(bad)


def _back_up(path: Path) -> None:
    """Copy a folder's files into ``.backup``, or the first of ``.backup.2``, ... that is free."""
    number = 1
    while (backup := path / (".backup" if number == 1 else f".backup.{number}")).exists():
        number += 1
    with _new_folder(path, ".backup.new") as new:
        for name in (WAVS, FEATURES, *REQUIRED, *OPTIONAL, "spk2utt", "report.tsv"):
            if (path / name).is_file():
                shutil.copy2(path / name, new / name)
        os.rename(new, backup)


@contextlib.contextmanager
def _new_folder(path: Path, name: str) -> Iterator[Path]:
    """Make a folder to fill below ``path``; it goes at the end, unless it was renamed.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    new = path / name
    try:
        # A killed run may have left its own.
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        yield new
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _no_file(path: str | Path) -> str | None:
    """Return why there is nothing to read at ``path``, or None."""
    try:
        if not os.path.isfile(path):
            return "no such file"
        return None if os.path.getsize(path) else "the file is empty"
    except OSError as error:
        return str(error.strerror or error)


def _select(table: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    if isinstance(table, Table):
        return table.select(keys)
    return {key: table[key] for key in keys if key in table}


def _where(table: Mapping[str, Any], key: str) -> str:
    return table.where(key) if isinstance(table, Table) else key
