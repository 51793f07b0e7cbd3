"""Two mends of lhotse, for as long as it prepares a corpus."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Length of a file whose header cannot be read [s]: no utterance is cut off.
UNREADABLE = 1e6


@contextmanager
def unreadable_files_pass() -> Iterator[None]:
    """Let lhotse take a file whose header cannot be read, or that is missing, for a very long one.

    Formatting reports it, and its utterances count in a test set. Processes that lhotse starts
    inherit this.
    """
    from lhotse.audio import RecordingSet, recording
    from lhotse.audio.backend import LibsndfileCompatibleAudioInfo

    read, measure = recording.info, RecordingSet.duration

    def info(*args: Any, **kwargs: Any) -> LibsndfileCompatibleAudioInfo:
        try:
            found = read(*args, **kwargs)
            if found.frames > 0:
                return found
        except Exception as error:  # as varied as the libraries behind it
            logging.debug(f"{args}: {error}")
        return LibsndfileCompatibleAudioInfo(1, round(UNREADABLE) * 16000, 16000, UNREADABLE)

    def duration(recordings: RecordingSet, recording_id: str) -> float:
        try:
            return measure(recordings, recording_id)
        except (KeyError, StopIteration):  # MLS lists it; lhotse leaves it out when it compares
            return UNREADABLE

    recording.info, RecordingSet.duration = info, duration
    try:
        yield
    finally:
        recording.info, RecordingSet.duration = read, measure


@contextmanager
def threads_errors_raised() -> Iterator[None]:
    """Raise at the end what ended a thread: lhotse lists a corpus in one and would not notice."""
    before, errors = threading.excepthook, list[BaseException | None]()
    threading.excepthook = lambda args: errors.append(args.exc_value)
    try:
        yield
    finally:
        threading.excepthook = before
    for error in filter(None, errors):
        raise error
