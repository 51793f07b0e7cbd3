"""Audio that libsndfile reads wrongly or not at all, read by FFmpeg's libraries (PyAV).

That is MP3, whose length libsndfile takes from a guess where the file does not say it (streams,
cut files of variable bit rate); FLAC whose header has no length, as encoders write it into a pipe;
and M4A, MP4, WebM, Matroska and AAC.
"""

import os
import re
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av
    import numpy as np

# Nothing that names further files or addresses, such as a playlist, is opened.
_FORMATS = "mp3,flac,mov,matroska,aac"
# A container's duration is rounded, and may count what an encoder adds before and behind [s].
_SLACK = 0.1
# An MP3 frame that says how many others there are, and how long it and its tag may be.
_COUNTED = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]|VBRI")
_FIRST_FRAME = 2048
# Decoded sound that is kept for segments that overlap [s].
_KEPT = 30


class Damaged(Exception):
    """What cannot be decoded or is missing; the message says where."""


class Stream:
    """The first audio stream of a file.

    Every packet must decode, and follow its neighbour in time: a hole is an error, whatever a
    player would make of it. An MP3 without a count of its frames, such as a piece of a broadcast,
    ends with its last whole frame: nobody can tell what was behind it.

    Attributes:
        rate: sampling rate [Hz].
        channels: number of channels.
        frames: how many samples a channel the file promises; None where it does not say,
            until reading has come to the end.
        slack: how many of them may be missing.
        intact: whether the last call of :meth:`blocks` came to its end.
    """

    intact = True

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._stack = ExitStack()
        self._start()
        self.rate, self.channels = self._stream.rate, self._stream.channels
        self.frames = self._promised(_counted(path))
        self.slack = round(_SLACK * self.rate)

    def _start(self) -> None:
        """Open the file, at its first sample."""
        import av

        self.close()
        with ExitStack() as stack:
            # An open file, because FFmpeg takes much for an address that is a name on disk.
            file = stack.enter_context(open(self._path, "rb"))
            try:
                container = av.open(file, options={"format_whitelist": _FORMATS})
            except MemoryError:
                raise
            except av.FFmpegError as error:
                raise Damaged(str(error.strerror)) from error
            self._container = stack.enter_context(container)
            if not self._container.streams.audio:
                raise Damaged("there is no audio in it")
            self._stream = self._container.streams.audio[0]
            self._stack = stack.pop_all()
        self._decoded = self._decode()
        # The last blocks that were decoded, and the samples where they begin and end.
        self._kept: deque[np.ndarray] = deque()
        self._begin = self._end = 0

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    def _promised(self, counted: bool) -> int | None:
        import av

        # Of bare frames FFmpeg guesses how many there are, by the size of the first ones.
        if self._container.format.name in ("mp3", "aac") and not counted:
            return None
        if self._stream.duration:
            return round(self._stream.duration * self._stream.time_base * self.rate)
        # Beside a picture the sound may be the shorter one.
        if self._container.duration and len(self._container.streams) == 1:
            return round(self._container.duration / av.time_base * self.rate)
        return None

    def blocks(self, first: int, last: int | None) -> Iterator["np.ndarray"]:
        """Yield float32 ``(time, channel)`` from one sample to another, or to the end.

        All that lies before is decoded too: an index in the file may be wrong, and a lossy
        decoder that starts in the middle gives other samples. What was decoded for an earlier
        call is not decoded again, unless this one begins more than 30 s before its end.
        """
        self.intact = False
        if first < self._begin:
            self._start()
        at = self._begin
        for block in chain(tuple(self._kept), self._fresh()):
            lower, at = at, at + len(block)
            if at > first:
                yield block[max(0, first - lower) : None if last is None else last - lower]
            if last is not None and at >= last:
                break
        self.intact = True

    def _fresh(self) -> Iterator["np.ndarray"]:
        """Decode on, and keep the last blocks."""
        for block in self._decoded:
            self._kept.append(block)
            self._end += len(block)
            while self._end - self._begin - len(self._kept[0]) > _KEPT * self.rate:
                self._begin += len(self._kept.popleft())
            yield block

    def _frames(self) -> Iterator["av.AudioFrame"]:
        """Yield the decoded frames; less than a frame at the end of a cut file is passed over."""
        import av

        cut = self.frames is None and self._container.format.name in ("mp3", "aac")
        error: av.FFmpegError | None = None
        for packet in self._container.demux(self._stream):
            if error is not None and packet.size:
                raise error
            try:
                yield from packet.decode()
            except av.InvalidDataError as found:
                if not cut:
                    raise
                error = found

    def _decode(self) -> Iterator["np.ndarray"]:
        """Yield all blocks, and set ``frames`` at the end."""
        import av

        resampler = av.AudioResampler(format="fltp")
        done, begin, slack = 0, None, _SLACK
        if self._container.format.name == "flac":
            # Its frames have checksums, and count from the file's first sample.
            self._stream.codec_context.options = {"err_detect": "crccheck+explode"}
            begin, slack = 0, 0.5 / self.rate
        try:
            for frame in self._frames():
                if frame.pts is not None:
                    time = frame.pts * frame.time_base
                    begin = time if begin is None else begin
                    hole = float(time - begin) - done / self.rate
                    if hole > slack:
                        raise Damaged(f"{hole:.2f} s are missing after {done / self.rate:.2f} s")
                for part in resampler.resample(frame):
                    block = part.to_ndarray().T
                    if part.sample_rate != self.rate or block.shape[1] != self.channels:
                        raise Damaged(f"rate or channels change after {done / self.rate:.2f} s")
                    done += len(block)
                    yield block
            if self.frames is None:
                self.frames = done
        except MemoryError:  # FFmpeg's own is one of its errors as well
            raise
        except (av.FFmpegError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise Damaged(f"{reason} after {done / self.rate:.2f} s") from error


# The stream that was read last, if any, and what its file was.
_last: list[tuple[object, Stream]] = []


@contextmanager
def opened(path: str | Path) -> Iterator[Stream]:
    """Open a file's :class:`Stream`; that of the file opened last stays open for its next segment.

    So the segments of a recording, in the order of time, cost one decoding of it in all.
    """
    info = os.stat(path)
    # A fork shares the place in the file with its parent.
    key = str(path), info.st_ino, info.st_size, info.st_mtime_ns, os.getpid()
    before, stream = _last.pop() if _last else (None, None)
    if stream is None or before != key:
        if stream is not None:
            stream.close()
        stream = Stream(path)
    try:
        yield stream
    finally:
        if stream.intact and not _last:
            _last.append((key, stream))
        else:
            stream.close()


def _counted(path: str | Path) -> bool:
    """Whether an MP3 says how many frames it has (tags of Xing, LAME and Fraunhofer)."""
    with open(path, "rb") as file:
        tag = file.read(10)
        if tag[:3] == b"ID3":
            size = 0
            for byte in tag[6:10]:
                size = size << 7 | byte & 0x7F
            file.seek(10 + size)
        else:
            file.seek(0)
        return bool(_COUNTED.search(file.read(_FIRST_FRAME)))
