"""The log of a training: everything in a file, the little that matters on the screen."""

import argparse
import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
from omniio import kaldi
from tqdm import tqdm

from mambaasr import provenance
from mambaasr.errors import UserError
from mambaasr.espnet_compat import get_rank

_SHOWN = ("loss", "acc", "cer_ctc", "cer", "wer", "lid_acc", "time")
_RESULTS = re.compile(r"\d+epoch results: ")


class _Lasting:
    """A stream that, once its reader has left, leads nowhere instead of raising."""

    def __init__(self, stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text):
        return self._attempt(self._stream.write, text)

    def flush(self):
        return self._attempt(self._stream.flush)

    def _attempt(self, operation, *args):
        try:
            return operation(*args)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


@contextlib.contextmanager
def lasting_screen() -> Iterator[None]:
    """Let what runs inside go on when its terminal is closed (``| head``, a lost connection)."""
    with contextlib.ExitStack() as stack:
        if sys.stdout is not None:
            stack.enter_context(contextlib.redirect_stdout(_Lasting(sys.stdout)))
        if sys.stderr is not None:
            stack.enter_context(contextlib.redirect_stderr(_Lasting(sys.stderr)))
        yield


class _Screen(logging.Handler):
    """Show warnings and each epoch's results without breaking a progress bar."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "py.warnings":
            return False
        return record.levelno >= logging.WARNING or bool(_RESULTS.match(str(record.msg)))

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        elif _RESULTS.match(text):
            text = _short(text)
        tqdm.write(text, file=sys.stderr)


def _short(results):
    """Cut ESPnet's line of an epoch's results down to losses, accuracy, error rates and time."""
    parts = []
    for phase, values in re.findall(r"\[(\w+)\] ([^\[]*)", results):
        found = dict(re.findall(r"\b(\w+)=([^,]+)", values))
        # ESPnet notes nan for what a model does not report; a loss may really be no number.
        there = {name for name, value in found.items() if value != "nan" or name == "loss"}
        shown = [f"{name} {found[name]}" for name in _SHOWN if name in there]
        if shown:
            parts.append(f"{phase}: " + ", ".join(shown))
    return f"epoch {results.partition('epoch')[0]}  " + "; ".join(parts)


def _message(error):
    """Return an exception's message.

    An error of soundfile that a DataLoader's worker passed on holds the worker's traceback where
    a number belongs, and cannot be turned into a string.
    """
    try:
        return str(error)
    except TypeError:
        return " ".join(str(arg) for arg in error.args).strip()


@contextlib.contextmanager
def _bad_audio_named():
    """Turn a reader's error into one line; ESPnet has named the utterance in the line before."""
    try:
        yield
    except (soundfile.SoundFileError, kaldi.ReadError, FileNotFoundError) as error:
        message = _message(error)
        # Archives are opened as files.
        if isinstance(error, FileNotFoundError) and ".ark" not in message:
            raise
        logging.info(f"an audio file cannot be read: {message}")
        reason = re.sub(r"^[\w.]+Error: ", "", message.rpartition("\n")[2]).rstrip(".")
        raise UserError(
            f"an audio file is missing or damaged: {reason}; run stage 3 (format audio) again, "
            "which makes it anew; check_data --read_audio on the data folder finds all such files"
        ) from error


@contextlib.contextmanager
def write_log(args: argparse.Namespace) -> Iterator[None]:
    """Send the log to ``train.log`` (``collect_stats.log``) in the output folder for a while.

    Args:
        args: ESPnet's options; ``output_dir`` and ``log_level`` matter. Of several processes
            only the first writes.

    Raises:
        UserError: the folder cannot be written, or an audio file cannot be read any more.
    """
    logging.captureWarnings(True)
    if get_rank(args.dist_rank, args.dist_launcher):
        with _bad_audio_named():
            yield  # ESPnet itself keeps the other ranks quiet
        return
    root = logging.getLogger()
    folder = Path(args.output_dir)
    name = "collect_stats.log" if args.collect_stats else "train.log"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(folder / name, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error.strerror or error}") from error
    file.setFormatter(
        logging.Formatter("%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    )
    handlers, level = root.handlers[:], root.level
    # ESPnet's basicConfig does nothing where handlers exist already, the level included.
    root.handlers[:] = [file, _Screen()]
    root.setLevel(args.log_level)
    logging.info(f"command: {provenance.command()}")
    try:
        with _bad_audio_named():
            yield
    except BaseException as error:
        logging.info(f"stopped by {type(error).__name__}: {_message(error)}")
        raise
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        logging.captureWarnings(False)
        file.close()
