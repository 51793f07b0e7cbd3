"""Audio files: read with every way checked in which one can be bad; written whole or not at all.

Wherever a path is read, ``path.ark:offset`` names a file in an archive (:mod:`mambaasr.data.ark`).
Recordings with several channels are averaged to one. Rates are converted by soxr, the resampler
of sox, at its high quality setting.
"""

import io
import logging
import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mambaasr.data import ark, ffmpeg, ogg
from mambaasr.errors import TransientError, UserError
from mambaasr.files import atomic_write

if TYPE_CHECKING:
    import numpy as np
    import soundfile

    from mambaasr.data.folder import DataFolder
    from mambaasr.data.kaldi_file import Problem

# As in Kaldi's extract-segments: a segment may end this much [s] after its recording.
MAX_OVERSHOOT = 0.5
# Integer samples written as floats reach thousands; speech that only clips a little stays near 1.
MAX_PEAK = 8.0
# Some writers count their own header as sound: so many bytes too few are no loss.
_HEADER_BYTES = 44
# A length in a header that stands for "not known when this was written" (sox and ffmpeg pipes).
_UNKNOWN_LENGTH = 0x7FFFF000
_FULL_SCALE = 0.999
# Channels differ where one is this far from their average, as a part of the loudest (-20 dB):
# what lossy coding adds is less, two microphones are more.
APART = 0.1
# libsndfile's count of frames where a header has none: the largest number.
_NO_LENGTH = 1 << 62
# Values that are read at once.
_BLOCK = 1 << 22
# Nobody records speech at others; a damaged header says them [Hz].
MIN_RATE, MAX_RATE = 1000, 1_000_000
# What stays as it is until somebody acts; other errors of the system may be gone in a minute.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# libsndfile's number for an error that the system reported (SF_ERR_SYSTEM of sndfile.h).
_SYSTEM_ERROR = 2
_SHOULD_BE = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.M
)


class AudioError(UserError):
    """A file, or a stretch of it, that cannot be used; the message is the reason."""


class TransientAudioError(AudioError, TransientError):
    """Audio that the machine could not read: full memory, a file system or a disk that fails."""


@dataclass(frozen=True)
class Sound:
    """An utterance's sound.

    Attributes:
        samples: float32 ``(time,)``, nominally in -1..1.
        rate: their sampling rate [Hz].
        native_rate: the file's [Hz].
        clipped: share of the samples at full scale, before any conversion.
        apart: how far its channels are from their average, where they were averaged: 0 they are
            the same, 1 as far as the loudest of them is loud.
        left: how loud the average is, as a part of the loudest channel; 0 they cancel out.
    """

    samples: "np.ndarray"
    rate: int
    native_rate: int
    clipped: float
    apart: float
    left: float


def read_audio(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    rate: int | None = None,
    channel: int | None = None,
) -> tuple["np.ndarray", int]:
    """Return the samples and the sampling rate of an utterance; see :func:`read_sound`.

    It logs where channels that differ were averaged.
    """
    sound = read_sound(path, start, end, rate, channel)
    if sound.apart > APART:
        logging.warning(f"{path}: channels that differ were averaged; take one, or format_audio")
    return sound.samples, sound.rate


def read_sound(
    path: str | Path,
    start: float = 0.0,
    end: float | None = None,
    rate: int | None = None,
    channel: int | None = None,
) -> Sound:
    """Read an utterance.

    Args:
        path: audio file of any kind that libsndfile or :mod:`mambaasr.data.ffmpeg` reads; in an
            archive of any that libsndfile reads.
        start: where the utterance begins [s].
        end: where it ends [s]; None is the end of the file.
        rate: sampling rate [Hz] to convert to; None keeps the file's.
        channel: the channel to take, from 1, where there are several; None is their average.

    Raises:
        AudioError: the file is missing, empty, damaged, truncated, no audio, or holds NaN or
            infinite samples; the segment lies outside of it; or it has no such channel. Whatever
            a decoder raises becomes this: a file's fault is its utterance's alone.
        TransientAudioError: memory is full, or the file is there and the system cannot read it.
    """
    import numpy as np

    with _faults_named(path), _mixing(path, channel) as (stream, mix):
        native = stream.rate
        samples = np.concatenate(list(_mixed(path, stream, mix, start, end)))
        clipped = float((np.abs(samples) >= _FULL_SCALE).mean())
        if rate is not None and rate != native:
            samples = resample(samples, native, rate)
            if len(samples) == 0:
                raise AudioError(f"{path}: no samples are left at {rate} Hz")
        return Sound(samples, rate or native, native, clipped, *mix.spread())


def stream_audio(
    path: str | Path,
    rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> Iterator["np.ndarray"]:
    """Yield the samples of a recording in pieces, at a rate: the memory does not grow with it.

    Args:
        path, start, end, channel: see :func:`read_sound`.
        rate: sampling rate [Hz].

    Yields:
        float32 ``(time,)``.

    Raises:
        AudioError: as :func:`read_sound`; what lies before a fault has been yielded then.
    """
    with _faults_named(path), _mixing(path, channel) as (stream, mix):
        blocks = _mixed(path, stream, mix, start, end)
        count = 0
        for block in blocks if rate == stream.rate else _resampled(blocks, stream.rate, rate):
            count += len(block)
            yield block
        if not count:
            raise AudioError(f"{path}: no samples are left at {rate} Hz")
    if mix.spread()[0] > APART:
        logging.warning(f"{path}: channels that differ were averaged; take one (--channel)")


def _resampled(
    blocks: Iterator["np.ndarray"], old_rate: int, new_rate: int
) -> Iterator["np.ndarray"]:
    import numpy as np
    import soxr

    converter = soxr.ResampleStream(old_rate, new_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield converter.resample_chunk(block)
    yield converter.resample_chunk(np.empty(0, np.float32), last=True)


@contextmanager
def _faults_named(path: str | Path) -> Iterator[None]:
    """Turn whatever a decoder or the system raises into an :class:`AudioError` with the path."""
    try:
        yield
    except AudioError:
        raise
    except ark.ArkError as error:
        raise AudioError(str(error)) from error
    except MemoryError as error:
        raise TransientAudioError(f"{path}: too long for the memory; cut it") from error
    except OSError as error:
        kind = AudioError if isinstance(error, _FINAL) else TransientAudioError
        raise kind(f"{path}: not readable: {error.strerror or error}") from error
    except Exception as error:
        raise AudioError(f"{path}: not readable: {type(error).__name__}: {error}") from error


@contextmanager
def _mixing(
    path: str | Path, channel: int | None
) -> Iterator[tuple["_Libsndfile | ffmpeg.Stream", "_Mix"]]:
    """Open a file, and give what makes one channel of its several."""
    file = ark.file_of(path)
    if not os.path.isfile(file):
        raise AudioError(f"{path}: no such file")
    if os.path.getsize(file) == 0:
        raise AudioError(f"{path}: the file is empty")
    with _open(path) as stream:
        channels = stream.channels
        if not MIN_RATE <= stream.rate <= MAX_RATE:
            raise AudioError(f"{path}: a sampling rate of {stream.rate} Hz")
        if channel is not None and channels > 1 and not 1 <= channel <= channels:
            raise AudioError(f"{path}: no channel {channel}: it has {channels}")
        yield stream, _Mix(None if channel is None or channels == 1 else channel - 1)


def _mixed(
    path: str | Path,
    stream: "_Libsndfile | ffmpeg.Stream",
    mix: "_Mix",
    start: float,
    end: float | None,
) -> Iterator["np.ndarray"]:
    """Yield the samples of a stretch, each block checked; see :func:`read_sound` for the faults."""
    import numpy as np

    count = 0
    promised = stream.frames
    first, last = _stretch(path, start, end, stream.rate, promised)
    for block in map(mix, stream.blocks(first, last)):
        if not np.isfinite(block).all():
            place = count + int(np.flatnonzero(~np.isfinite(block))[0])
            raise AudioError(f"{path}: sample {place} of the utterance is NaN or infinite")
        peak = float(np.abs(block).max(initial=0.0))
        if peak > MAX_PEAK:
            raise AudioError(
                f"{path}: samples reach {peak:g}; floating point audio must lie within -1..1"
            )
        count += len(block)
        yield block
    if promised is None:
        # Reading has found where the recording ends, if it came there.
        first, last = _stretch(path, start, end, stream.rate, stream.frames)
        promised = first + count
    promised = promised if last is None else last
    if first + count + stream.slack < promised:
        raise AudioError(
            f"{path}: truncated: {promised - first} samples are promised, {count} can be read"
        )
    if not count:
        raise AudioError(f"{path}: no samples")


class _Mix:
    """Makes one channel of several, block by block, and keeps how they differ."""

    def __init__(self, channel: int | None) -> None:
        self.channel = channel
        self.loudest: Any = 0.0
        self.apart: Any = 0.0
        self.average = 0.0

    def __call__(self, block: "np.ndarray") -> "np.ndarray":
        """Return ``(time,)`` for float32 ``(time, channel)``."""
        import numpy as np

        if block.shape[1] == 1 or self.channel is not None:
            # A copy, because the other channels would stay in memory with it.
            return block[:, self.channel or 0].copy()
        average = block.mean(axis=1, dtype=np.float32)
        self.loudest += np.square(block, dtype=np.float64).sum(0)
        self.apart += np.square(block - average[:, None], dtype=np.float64).sum(0)
        self.average += float(np.square(average, dtype=np.float64).sum())
        return average

    def spread(self) -> tuple[float, float]:
        """Return ``apart`` and ``left`` of :class:`Sound`."""
        import numpy as np

        loudest = float(np.max(self.loudest))
        if not loudest:
            return 0.0, 1.0
        return math.sqrt(np.max(self.apart) / loudest), math.sqrt(self.average / loudest)


def resample(samples: "np.ndarray", old_rate: float, new_rate: float) -> "np.ndarray":
    """Convert samples ``(time,)`` from one rate to another; the rates may be fractions."""
    import soxr

    return soxr.resample(samples, old_rate, new_rate, quality="HQ")


class _Libsndfile:
    """A file that libsndfile reads, with the interface of :class:`mambaasr.data.ffmpeg.Stream`."""

    slack = 0

    def __init__(self, stream: "soundfile.SoundFile") -> None:
        self._stream = stream
        self.rate, self.channels = stream.samplerate, stream.channels
        self.frames: int = stream.frames

    def blocks(self, first: int, last: int | None) -> Iterator["np.ndarray"]:
        """Yield float32 ``(time, channel)``; what a header claims is never allocated at once."""
        last = self.frames if last is None else last
        if first:
            self._stream.seek(first)
        size = max(1, _BLOCK // self.channels)
        while first < last:
            block = self._stream.read(min(size, last - first), dtype="float32", always_2d=True)
            if not len(block):
                return
            first += len(block)
            yield block


@contextmanager
def _open(path: str | Path) -> Iterator["_Libsndfile | ffmpeg.Stream"]:
    """Open a file with the library that reads it right; raise :class:`AudioError`."""
    import soundfile

    archived = ark.split(path)[1] is not None
    with ExitStack() as stack:
        try:
            source = ark.open_audio(path) if archived else path
            # libsndfile complains on the screen of MP3 that it is not to read anyway.
            mp3 = not archived and _is_mp3(path)
            stream = None if mp3 else stack.enter_context(soundfile.SoundFile(source))
        except TypeError as error:
            # soundfile asks for the rate of what it takes, by its name, for headerless samples.
            raise AudioError(
                f"{path}: samples without a header: convert it to WAV or FLAC"
            ) from error
        except soundfile.SoundFileError as error:
            if archived:
                raise AudioError(f"{path}: not readable: {_why(error)}") from error
            stream = None
        if stream is None or stream.format == "MP3" or stream.frames >= _NO_LENGTH:
            stack.close()
            yield from _by_ffmpeg(path)
            return
        lost = _missing_frames(path, stream, _HEADER_BYTES)
        if lost:
            raise AudioError(f"{path}: truncated or damaged: {lost}")
        if stream.frames == 0:
            raise AudioError(f"{path}: no samples")
        try:
            yield _Libsndfile(stream)
        except soundfile.SoundFileError as error:
            system = getattr(error, "code", None) == _SYSTEM_ERROR
            kind = TransientAudioError if system else AudioError
            raise kind(f"{path}: not readable, or truncated: {_why(error)}") from error


def _why(error: "soundfile.SoundFileError") -> str:
    """Return the reason that libsndfile gives."""
    return getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")


def _is_mp3(path: str | Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(3)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe2")


def _by_ffmpeg(path: str | Path) -> Iterator[ffmpeg.Stream]:
    try:
        with ffmpeg.opened(path) as stream:
            yield stream
    except ffmpeg.Damaged as error:
        raise AudioError(f"{path}: not readable, or truncated: {error}") from error


def _missing_frames(path: str | Path, stream: "soundfile.SoundFile", tolerated: int) -> str | None:
    """Return what a header promises and the file does not hold, or None.

    libsndfile shortens truncated files silently; only its log of the header shows it. A number of
    missing bytes is tolerated.
    """
    log = stream.extra_info
    for promised, there in _SHOULD_BE.findall(log):
        if int(there) + tolerated < int(promised) < _UNKNOWN_LENGTH:
            return f"the header promises {promised} bytes, {there} are there"
    if ark.split(path)[1] is not None:
        return None
    if stream.format == "OGG":
        return ogg.first_fault(path)
    if stream.format == "NIST":
        with open(path, "rb") as header:
            count = re.search(rb"sample_count -i (\d+)", header.read(1024))
        if count and int(count[1]) > stream.frames:
            return f"the header promises {int(count[1])} samples, {stream.frames} are there"
    return None


def _stretch(
    path: str | Path, start: float, end: float | None, rate: int, frames: int | None
) -> tuple[int, int | None]:
    """Return the first and the last + 1 frame of a segment; None is the end of the file."""
    first = round(start * rate)
    last = None if end is None else round(end * rate)
    if frames is not None:
        if first >= frames or (last or 0) > frames + MAX_OVERSHOOT * rate:
            stretch = f"{start:g} s to {'the end' if end is None else f'{end:g} s'}"
            raise AudioError(
                f"{path}: the segment from {stretch} leaves the recording, which lasts "
                f"{frames / rate:g} s"
            )
        last = last and min(last, frames)
    if last is not None and last <= first:
        raise AudioError(f"{path}: the segment from {start:g} s to {end:g} s holds no sample")
    return first, last


def write_audio(
    path: str | Path,
    samples: "np.ndarray",
    rate: int,
    audio_format: str = "flac",
    comment: str | None = None,
    sync: bool = True,
) -> None:
    """Write float samples ``(time,)`` as 16-bit audio; values beyond -1..1 are clipped.

    Where a file with the same samples lies there, it keeps its time: nothing that read it before
    has to be done again.

    Args:
        path: the file.
        samples: float array ``(time,)``.
        rate: sampling rate [Hz].
        audio_format: flac or wav.
        comment: text kept in the file's header; see :func:`finished`.
        sync: see :func:`mambaasr.files.atomic_write`.

    Raises:
        UserError: the file cannot be written, or the disk is full.
    """
    # Encoded in memory, because a disk that fills up is only an error message inside libsndfile.
    encoded = encode_audio(samples, rate, audio_format, comment)
    before = _if_same_audio(path, encoded)
    with atomic_write(path, "wb", sync) as stream:
        stream.write(encoded.getvalue())
    if before is not None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def encode_audio(
    samples: "np.ndarray", rate: int, audio_format: str, comment: str | None = None
) -> io.BytesIO:
    """Return the file that :func:`write_audio` writes."""
    import numpy as np
    import soundfile

    encoded = io.BytesIO()
    with soundfile.SoundFile(
        encoded, "w", rate, 1, subtype="PCM_16", format=audio_format.upper()
    ) as stream:
        if comment is not None:
            stream.comment = comment
        stream.write(np.clip(samples, -1.0, 1.0))
    encoded.seek(0)
    return encoded


def read_header(path: str | Path) -> "soundfile._SoundFileInfo":
    """Return soundfile's information on a file: samplerate, duration, ...

    Raises:
        AudioError: it cannot be read.
    """
    import soundfile

    try:
        return soundfile.info(ark.open_audio(path) if ark.split(path)[1] is not None else path)
    except Exception as error:  # whatever libsndfile's interface raises
        reason = error if isinstance(error, ark.ArkError) else f"{path}: not readable: {error}"
        raise AudioError(str(reason)) from error


def _if_same_audio(path: str | Path, encoded: io.BytesIO) -> os.stat_result | None:
    """Return the state of a file with the samples and rate of an encoded one, else None."""
    import numpy as np
    import soundfile

    try:
        before = os.stat(path)
        old, old_rate = soundfile.read(path, dtype="int16")
    except Exception:  # whatever a decoder says of it, it is no such file
        return None
    encoded.seek(0)
    new, rate = soundfile.read(encoded, dtype="int16")
    return before if rate == old_rate and np.array_equal(old, new) else None


def finished(path: str | Path, begin: str) -> tuple[int, str] | None:
    """Return the length of a file that :func:`write_audio` made, and the rest of its comment.

    None where it is not whole, or its comment does not begin like this. The last sample is read,
    so a file that lost its end does not count.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as stream:
            comment, frames = stream.comment, stream.frames
            if not comment.startswith(begin) or not frames or _missing_frames(path, stream, 0):
                return None
            stream.seek(frames - 1)
            return (frames, comment.removeprefix(begin)) if len(stream.read(1)) == 1 else None
    except Exception:  # whatever a decoder says of it, it is made anew
        return None


def audio_problems(
    folder: "DataFolder", skip: Collection[str] = (), nj: int = 1
) -> list["Problem"]:
    """Read all audio of a data folder, or features, and return a problem for each that is bad.

    Args:
        folder: a :class:`mambaasr.data.folder.DataFolder`.
        skip: utterances that need no reading.
        nj: number of processes.
    """
    from mambaasr.data.kaldi_file import Problem
    from mambaasr.parallel import map_items

    utts = [utt for utt in folder.utterances if utt not in skip]
    sources = [(*folder.source(utt), folder.channel(utt)) for utt in utts]
    check = _why_bad_features if folder.has_features else _why_bad
    reasons = map_items(check, sources, nj, "Check audio")
    remedy = "replace the file, or drop the utterance"
    return [
        Problem(folder.where(utt), f"{utt}: {reason}", remedy, utt)
        for utt, reason in zip(utts, reasons, strict=True)
        if reason
    ]


def _why_bad(source: tuple[str, float, float | None, int | None]) -> str | None:
    """Return why an utterance (path, start, end, channel) cannot be read, or None."""
    path, start, end, channel = source
    try:
        read_sound(path, start, end, channel=channel)
    except AudioError as error:
        return str(error)
    return None


def _why_bad_features(source: tuple[str, float, float | None, int | None]) -> str | None:
    try:
        ark.read_matrix(source[0])
    except ark.ArkError as error:
        return str(error)
    return None
