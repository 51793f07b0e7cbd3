"""Audio files: read with every way checked in which one can be bad; written whole or not at all.

Recordings with several channels are averaged to one. Rates are converted by soxr, the resampler
of sox, at its high quality setting.
"""

import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mambaasr.errors import UserError
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
# MP3 has no length in its header: libsndfile's is a guess, right to a frame or two.
_MP3_SLACK = 2 * 1152
_SHOULD_BE = re.compile(
    r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)", re.M
)


class AudioError(UserError):
    """A file, or a stretch of it, that cannot be used; the message is the reason."""


def read_audio(
    path: str | Path, start: float = 0.0, end: float | None = None, rate: int | None = None
) -> tuple["np.ndarray", int]:
    """Read an utterance.

    Args:
        path: audio file of any kind that libsndfile reads.
        start: where the utterance begins [s].
        end: where it ends [s]; None is the end of the file.
        rate: sampling rate [Hz] to convert to; None keeps the file's.

    Returns:
        Samples as float32 ``(time,)``, nominally in -1..1, and the sampling rate [Hz].

    Raises:
        AudioError: the file is missing, empty, truncated, no audio, or holds NaN or infinite
            samples; or the segment lies outside of it.
    """
    import numpy as np

    samples, native = _read(path, start, end)
    if samples.shape[1] > 1:
        samples = samples.mean(axis=1, dtype=np.float32)
    samples = samples.reshape(-1)
    if not np.isfinite(samples).all():
        first = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise AudioError(f"{path}: sample {first} of the utterance is NaN or infinite")
    peak = float(np.abs(samples).max())
    if peak > MAX_PEAK:
        raise AudioError(
            f"{path}: samples reach {peak:g}; floating point audio must lie within -1..1"
        )
    if rate is None or rate == native:
        return samples, native
    samples = resample(samples, native, rate)
    if len(samples) == 0:
        raise AudioError(f"{path}: no samples are left at {rate} Hz")
    return samples, rate


def resample(samples: "np.ndarray", old_rate: float, new_rate: float) -> "np.ndarray":
    """Convert samples ``(time,)`` from one rate to another; the rates may be fractions."""
    import soxr

    return soxr.resample(samples, old_rate, new_rate, quality="HQ")


def _read(path: str | Path, start: float, end: float | None) -> tuple["np.ndarray", int]:
    """Return float32 ``(time, channel)`` and the rate; raise :class:`AudioError`."""
    import soundfile

    if not Path(path).is_file():
        raise AudioError(f"{path}: no such file")
    try:
        if Path(path).stat().st_size == 0:
            raise AudioError(f"{path}: the file is empty")
        with soundfile.SoundFile(path) as stream:
            rate, frames = stream.samplerate, stream.frames
            lost = _missing_frames(path, stream, _HEADER_BYTES)
            if lost:
                raise AudioError(f"{path}: truncated: {lost}")
            if frames == 0:
                raise AudioError(f"{path}: no samples")
            first, last = _stretch(path, start, end, rate, frames)
            if first:
                stream.seek(first)
            samples = stream.read(last - first, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        reason = getattr(error, "error_string", str(error)).removeprefix("Error : ").rstrip(".")
        raise AudioError(f"{path}: not readable, or truncated: {reason}") from error
    except OSError as error:
        raise AudioError(f"{path}: not readable: {error.strerror or error}") from error
    except TypeError as error:
        # soundfile asks for the rate of what it takes, by its name, for headerless samples.
        raise AudioError(f"{path}: samples without a header: convert it to WAV or FLAC") from error
    slack = _MP3_SLACK if stream.format == "MP3" and last == frames else 0
    if len(samples) + slack < last - first or len(samples) == 0:
        raise AudioError(
            f"{path}: truncated: {last - first} samples are promised, {len(samples)} can be read"
        )
    return samples, rate


def _missing_frames(path: str | Path, stream: "soundfile.SoundFile", tolerated: int) -> str | None:
    """Return what a header promises and the file does not hold, or None.

    libsndfile shortens truncated files silently; only its log of the header shows it. A number of
    missing bytes is tolerated.
    """
    log = stream.extra_info
    for promised, there in _SHOULD_BE.findall(log):
        if int(there) + tolerated < int(promised) < _UNKNOWN_LENGTH:
            return f"the header promises {promised} bytes, {there} are there"
    if "ended unexpectedly" in log:
        return "the end of the stream is missing"
    if stream.format == "NIST":
        with open(path, "rb") as header:
            count = re.search(rb"sample_count -i (\d+)", header.read(1024))
        if count and int(count[1]) > stream.frames:
            return f"the header promises {int(count[1])} samples, {stream.frames} are there"
    return None


def _stretch(
    path: str | Path, start: float, end: float | None, rate: int, frames: int
) -> tuple[int, int]:
    """Return the first and the last + 1 frame of a segment."""
    first = round(start * rate)
    last = frames if end is None else round(end * rate)
    if first >= frames or last > frames + MAX_OVERSHOOT * rate:
        raise AudioError(
            f"{path}: the segment from {start:g} s to {'the end' if end is None else f'{end:g} s'} "
            f"leaves the recording, which lasts {frames / rate:g} s"
        )
    last = min(last, frames)
    if last <= first:
        raise AudioError(f"{path}: the segment from {start:g} s to {end:g} s holds no sample")
    return first, last


def write_audio(
    path: str | Path,
    samples: "np.ndarray",
    rate: int,
    audio_format: str = "flac",
    comment: str | None = None,
) -> None:
    """Write float samples ``(time,)`` as 16-bit audio; values beyond -1..1 are clipped.

    Where a file with the same samples lies there, it keeps its time: nothing that read it before
    has to be done again.

    Args:
        path: the file.
        samples: float array ``(time,)``.
        rate: sampling rate [Hz].
        audio_format: flac or wav.
        comment: text kept in the file's header; see :func:`finished_samples`.

    Raises:
        UserError: the file cannot be written, or the disk is full.
    """
    import numpy as np
    import soundfile

    # Encoded in memory, because a disk that fills up is only an error message inside libsndfile.
    encoded = io.BytesIO()
    with soundfile.SoundFile(
        encoded, "w", rate, 1, subtype="PCM_16", format=audio_format.upper()
    ) as stream:
        if comment is not None:
            stream.comment = comment
        stream.write(np.clip(samples, -1.0, 1.0))
    before = _if_same_audio(path, encoded)
    with atomic_write(path, "wb") as stream:
        stream.write(encoded.getvalue())
    if before is not None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _if_same_audio(path: str | Path, encoded: io.BytesIO) -> os.stat_result | None:
    """Return the state of a file with the samples and rate of an encoded one, else None."""
    import numpy as np
    import soundfile

    try:
        before = os.stat(path)
        old, old_rate = soundfile.read(path, dtype="int16")
    except (soundfile.SoundFileError, OSError):
        return None
    encoded.seek(0)
    new, rate = soundfile.read(encoded, dtype="int16")
    return before if rate == old_rate and np.array_equal(old, new) else None


def finished_samples(path: str | Path, comment: str) -> int | None:
    """Return the length of a file that :func:`write_audio` made with this comment, else None.

    The last sample is read, so a file that lost its end does not count.
    """
    import soundfile

    try:
        with soundfile.SoundFile(path) as stream:
            if stream.comment != comment or not stream.frames or _missing_frames(path, stream, 0):
                return None
            stream.seek(stream.frames - 1)
            return stream.frames if len(stream.read(1)) == 1 else None
    except (soundfile.SoundFileError, OSError):
        return None


def audio_problems(
    folder: "DataFolder", skip: Collection[str] = (), nj: int = 1
) -> list["Problem"]:
    """Read all audio of a data folder, and return a problem for each utterance that is bad.

    Args:
        folder: a :class:`mambaasr.data.folder.DataFolder`.
        skip: utterances that need no reading.
        nj: number of processes.
    """
    from mambaasr.data.kaldi_file import Problem
    from mambaasr.parallel import map_items

    utts = [utt for utt in folder.utterances if utt not in skip]
    reasons = map_items(_why_bad, [folder.source(utt) for utt in utts], nj, "Check audio")
    remedy = "replace the file, or drop the utterance"
    return [
        Problem(folder.where(utt), f"{utt}: {reason}", remedy, utt)
        for utt, reason in zip(utts, reasons, strict=True)
        if reason
    ]


def _why_bad(source: tuple[str, float, float | None]) -> str | None:
    """Return why an utterance (path, start, end) cannot be read, or None."""
    try:
        read_audio(*source)
    except AudioError as error:
        return str(error)
    return None
