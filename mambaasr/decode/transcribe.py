"""Transcribe what a command line names, and write it in the formats that are wanted."""

import argparse
import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mambaasr import provenance
from mambaasr.decode import formats
from mambaasr.decode.chunks import sha256, stamp_of
from mambaasr.decode.experiment import Experiment, open_experiment
from mambaasr.decode.recordings import STDIN, WHOLE, Recording, find_recordings
from mambaasr.decode.transcript import Transcript
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.source import code_of

# Beside the transcripts: of each what it was made of, so that it is not made again.
MADE = ".made"
# What decides a transcript or its files; the others decide how it is computed.
_DECIDES = (
    "search", "beam_size", "ctc_weight", "nbest", "long", "longest", "channel", "language",
    "prompt", "phrase_weight", "word_timestamps", "max_line_width", "max_line_count", "formats",
)  # fmt: skip


def transcribe(args: argparse.Namespace) -> int:
    """Transcribe; return the exit status.

    Args:
        args: of :mod:`mambaasr.bin.transcribe`, checked.

    Raises:
        UserError: the model cannot be opened, or nothing at all is there to be transcribed.
    """
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)
    clips = args.clip_timestamps or WHOLE
    recordings, problems = find_recordings(args.inputs, clips, args.channel, args.language)
    for reason in problems:
        print(f"error: {reason}", file=sys.stderr)
    if not recordings:
        raise UserError(f"nothing to transcribe in {' '.join(args.inputs)}")
    experiment = open_experiment(args.model)
    out = None if args.output_dir is None else Path(args.output_dir)
    if out is not None:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = "a file of that name is there" if out.is_file() else error.strerror or error
            raise UserError(f"--output_dir {out}: {reason}") from None
    made = _Made(out, args, experiment) if out is not None else None
    if made and not args.overwrite:
        for other, each in [(made.other(each), each) for each in recordings]:
            if other:
                problems.append(
                    f"{each.path}: {out}/{each.name} was made of {other}: give another "
                    "--output_dir, or --overwrite"
                )
                print(f"error: {problems[-1]}", file=sys.stderr)
                recordings.remove(each)
    waiting = [each for each in recordings if args.overwrite or not (made and made.has(each))]
    if len(waiting) < len(recordings) and not args.quiet:
        print(f"{len(recordings) - len(waiting)} are done already", file=sys.stderr)
    failed, seconds, audio = len(problems), 0.0, 0.0
    if waiting and experiment.decoding and not args.quiet:
        print(f"what is not given is as in {experiment.decoding}", file=sys.stderr)
    count = 0
    try:
        for recording, found in _transcripts(waiting, args) if waiting else ():
            count += 1
            failed += bool(found.error)
            seconds, audio = seconds + found.seconds, audio + found.duration
            if found.error:
                reason = found.error.removeprefix(f"{recording.path}: ")
                where = "standard input" if recording.path == STDIN else recording.path
                _say(f"error: {where}: {reason}")
            _give(found, args, made, recording, len(waiting))
    except KeyboardInterrupt:
        again = "; the same command goes on" if made else ""
        _say(f"stopped after {count} of {len(waiting)} recordings{again}")
        raise
    if not args.quiet:
        done = len(waiting) + len(problems) - failed
        rtf = f", RTF {seconds / audio:.3f}" if audio else ""
        where = f"; written to {out}" if out is not None else ""
        length = f"{audio / 3600:.2f} h" if audio >= 3600 else f"{audio:.0f} s"
        said = f"{done} transcribed, {failed} failed, {length} of audio{rtf}{where}"
        print(said, file=sys.stderr)
    return 1 if failed else 0


def _transcripts(
    waiting: Sequence[Recording], args: argparse.Namespace
) -> Iterator[tuple[Recording, Transcript]]:
    """Yield transcripts in the order of the recordings, with a bar."""
    import torch
    from tqdm import tqdm

    from mambaasr.decode.speech_recognizer import SpeechRecognizer

    if args.threads:
        torch.set_num_threads(args.threads)
    recognizer = SpeechRecognizer(
        args.model,
        **{
            name: getattr(args, name)
            for name in (
                "device", "search", "beam_size", "ctc_weight", "nbest", "batch_size", "long",
                "longest", "phrases", "phrase_weight", "prompt",
            )
        },
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        opened = [_opened(each, stack) for each in waiting]
        bar = stack.enter_context(
            tqdm(
                total=len(waiting),
                unit="recording",
                dynamic_ncols=True,
                disable=args.quiet or not sys.stderr.isatty(),
            )
        )
        audio = seconds = 0.0
        found = recognizer.transcribe(iter(opened))
        for recording, file, each in zip(waiting, opened, found, strict=True):
            if each.error and recording.path == STDIN:  # the name of its file says nothing
                each.error = each.error.replace(f"{file.path}: ", "")
            audio, seconds = audio + each.duration, seconds + each.seconds
            rtf = f"{seconds / audio:.3f}" if audio else "-"
            bar.set_postfix(hours=f"{audio / 3600:.2f}", rtf=rtf, refresh=False)
            bar.update()
            yield recording, each


def _opened(recording: Recording, stack: contextlib.ExitStack) -> Recording:
    """Return a recording with a file: standard input becomes one."""
    if recording.path != STDIN:
        return recording
    file = stack.enter_context(tempfile.NamedTemporaryFile())
    shutil.copyfileobj(sys.stdin.buffer, file)
    file.flush()
    return replace(recording, path=file.name)


def _give(
    found: Transcript,
    args: argparse.Namespace,
    made: "_Made | None",
    recording: Recording,
    count: int,
) -> None:
    """Write or print a transcript; one that failed as a whole is not written."""
    if args.json_lines:
        content = {"name": found.name, **found.as_dict(args.word_timestamps)}
        _say(json.dumps(content, ensure_ascii=False), sys.stdout)
    if made is not None:
        if found.text or not found.error:
            made.write(found, recording)
        else:
            made.forget(recording)
    elif not args.json_lines and (found.text or not found.error):
        _say(f"{found.name}\t{found.text}" if count > 1 else found.text, sys.stdout)


def _say(text: str, stream: Any = None) -> None:
    """Print a line without breaking the bar."""
    from tqdm import tqdm

    tqdm.write(text, file=stream or sys.stderr)


class _Made:
    """What is written already, and of what it was made."""

    def __init__(self, out: Path, args: argparse.Namespace, experiment: Experiment) -> None:
        self.out, self.args, self.experiment = out, args, experiment
        files = [experiment.config, experiment.weights, *(experiment.lm or ())]
        files += [experiment.ngram] if experiment.ngram else []
        files += [args.phrases] if args.phrases else []
        self._common = {
            "files": [sha256(str(file)) for file in files],
            "found": [experiment.search, experiment.options, experiment.prompt, experiment.seconds],
            "options": {name: getattr(args, name) for name in _DECIDES},
            "code": code_of(["mambaasr.decode.speech_recognizer", "mambaasr.decode.formats"]),
        }

    def has(self, recording: Recording) -> bool:
        """Whether a recording's files are there, made by this model with these options."""
        said = self._read(recording)
        files = [self.out / name for name in said.get("written", ())]
        same = said.get("fingerprint") == self._fingerprint(recording)
        return same and all(file.is_file() for file in files)

    def other(self, recording: Recording) -> str | None:
        """Return the path of another recording, of which the files of this name were made."""
        path = self._read(recording).get("path")
        return path if path not in (None, os.path.abspath(recording.path)) else None

    def forget(self, recording: Recording) -> None:
        """Remove what is there of a recording: it is no longer right."""
        for name in self._read(recording).get("written", ()):
            (self.out / name).unlink(missing_ok=True)
        self._marker(recording).unlink(missing_ok=True)

    def _read(self, recording: Recording) -> dict[str, Any]:
        try:
            return json.loads(self._marker(recording).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def write(self, found: Transcript, recording: Recording) -> None:
        """Write a transcript's files; it counts as made where nothing of it failed."""
        more = {
            "path": str(recording.path),
            "model": str(self.experiment.weights),
            "version": provenance.environment()["mambaasr"],
        }
        layout = formats.Layout(
            self.args.max_line_width, self.args.max_line_count, self.args.word_timestamps
        )
        self.forget(recording)
        files = formats.write(found, self.out / recording.name, self.args.formats, layout, more)
        if found.error or recording.path == STDIN:
            return
        with atomic_write(self._marker(recording)) as stream:
            content = {
                "path": os.path.abspath(recording.path),
                "fingerprint": self._fingerprint(recording),
                "written": [str(file.relative_to(self.out)) for file in files],
            }
            json.dump(content, stream, ensure_ascii=False)

    def _marker(self, recording: Recording) -> Path:
        return self.out / MADE / f"{recording.name}.json"

    def _fingerprint(self, recording: Recording) -> str:
        stamp = stamp_of(str(recording.path))
        own = [os.path.abspath(recording.path), stamp, recording.clips, recording.language]
        said = json.dumps([self._common, own, recording.channel], sort_keys=True, default=str)
        return hashlib.sha256(said.encode()).hexdigest()
