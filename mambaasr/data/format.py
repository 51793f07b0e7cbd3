"""Audio of a data folder, written anew: mono, at one rate, a file an utterance or in archives.

Speed perturbation is the same work with a resampling in the middle, so it is done here too.
The work is resumable: each written file carries a fingerprint of its source, options and code in
its header, and each archive has it beside it, of all its utterances. After a kill or a change of
inputs, files that are whole and carry the right fingerprint stay; all others are made again.
"""

import hashlib
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mambaasr.data import ark
from mambaasr.data.audio import (
    AudioError,
    encode_audio,
    finished,
    read_sound,
    resample,
    write_audio,
)
from mambaasr.data.dropped import Dropped, carry_rows, write_report
from mambaasr.data.folder import FEATURES, WAVS, DataFolder
from mambaasr.data.measures import Measures, measure, warn, write_measures
from mambaasr.errors import UserError
from mambaasr.files import atomic_write
from mambaasr.parallel import map_items
from mambaasr.source import code_of

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("flac", "wav", "flac.ark", "wav.ark")
# Small pieces spread long utterances over the workers, large ones save on handing out work.
_MAX_CHUNK = 64
# Utterances in an archive: of 12 s each some 150 MB of FLAC. Of a small set they are fewer, so
# that there is an archive for each worker.
_MIN_PART, _MAX_PART, _PARTS = 50, 1000, 16


@dataclass(frozen=True)
class Job:
    """The audio of one utterance, or recording, to make.

    Attributes:
        key: its id.
        source: audio file.
        start, end: the stretch to take [s]; end None is the file's end.
        rate: sampling rate [Hz] to write; None keeps the source's.
        factor: speed factor, 1 changes nothing.
        channel: the channel to take, from 1; None averages them.
    """

    key: str
    source: str
    start: float
    end: float | None
    rate: int | None = None
    factor: float = 1.0
    channel: int | None = None

    def fingerprint(self, code: Mapping[str, str]) -> str:
        """Return a text that changes with the source (by time and size), options and code."""
        state = os.stat(ark.file_of(self.source))
        facts = [self.source, state.st_size, state.st_mtime_ns, code]
        facts += [self.start, self.end, self.rate, self.factor, self.channel]
        return "mambaasr " + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """Outcome of a job.

    Attributes:
        samples: how many samples were written; None where none were.
        measures: what they are.
        place: the file, or its place in an archive.
        shape: of the features that were written instead of the samples, as ``frames,bins``.
        made: whether this run has written it.
        reason: why there is nothing.
    """

    samples: int | None = None
    measures: Measures | None = None
    place: str = ""
    shape: str = ""
    made: bool = False
    reason: str | None = None


@dataclass(frozen=True)
class Sink:
    """Where the audio of a folder goes.

    Attributes:
        folder: the data folder; the audio lies in ``audio`` below it.
        kind: one of FORMATS, or another archive's suffix.
        modules: besides this one, whose code what is written depends on.
    """

    folder: str
    kind: str = "flac"
    modules: tuple[str, ...] = ()

    @property
    def in_archives(self) -> bool:
        """Whether many utterances lie in one file."""
        return self.kind.endswith(".ark")

    def record(self, samples: "np.ndarray", rate: int) -> tuple[bytes, str]:
        """Return what an archive holds of an utterance, and the shape of features.

        Raises:
            AudioError: it cannot be stored.
        """
        file = encode_audio(samples, rate, self.kind.removesuffix(".ark"))
        return ark.audio_record(file.getvalue()), ""

    def archive(self, number: int) -> str:
        """Return the path of an archive."""
        return f"{self.folder}/audio/{number:05d}.{self.kind}"

    def remove_leftovers(self) -> None:
        """Remove the half-written files of a killed run."""
        for place in (f"audio/*/.*.{self.kind}.*", f"audio/.*.{self.kind}.*"):
            for path in Path(self.folder).glob(place):
                path.unlink(missing_ok=True)

    def remove_others(self, count: int) -> None:
        """Remove the archives of a larger set that was here before; the first ``count`` stay."""
        own = {os.path.basename(self.archive(number)) for number in range(count)}
        for path in Path(self.folder).glob(f"audio/[0-9]*.{self.kind}"):
            if path.name not in own:
                Path(f"{path}.json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)


class Part(NamedTuple):
    """An archive to make.

    Attributes:
        path: of the archive.
        jobs: what it is to hold.
    """

    path: str
    jobs: Sequence[Job]

    def __str__(self) -> str:
        return self.path


def run_job(job: Job, sink: Sink, code: Mapping[str, str]) -> Result:
    """Make one audio file unless it is there and right, by this code; return a :class:`Result`.

    Raises:
        UserError: the file cannot be written, or the disk is full.
    """
    target = audio_path(sink.folder, job.key, sink.kind)
    try:
        fingerprint = job.fingerprint(code)
    except OSError as error:
        return Result(reason=_unreadable(job, error))
    found = finished(target, fingerprint)
    if found is not None:
        return Result(found[0], Measures.from_text(found[1]), target)
    heard = _hear(job)
    if isinstance(heard, Result):
        return heard
    audio, rate, measures = heard
    comment = f"{fingerprint} {measures.to_text()}"
    write_audio(target, audio, rate, sink.kind, comment, sync=False)
    return Result(len(audio), measures, target, made=True)


def run_part(part: Part, sink: Sink, code: Mapping[str, str]) -> list[Result]:
    """Make one archive of many jobs, unless it is there and right; return their results.

    Beside it, in ``ARCHIVE.json``, stand its fingerprint, size and results. Where it comes out as
    it was, it keeps its time: nothing that read it before has to be done again.

    Raises:
        UserError: a file cannot be written, or the disk is full.
    """
    path, jobs = part
    facts = [replace(sink, folder="").__dict__, [_mark(job, code) for job in jobs]]
    mark = hashlib.sha256(json.dumps(facts).encode())
    before = _read_part(path)
    if before and before["mark"] == mark.hexdigest():
        results = [_result(row) for row in before["results"]]
        bad = [job for job, result in zip(jobs, results, strict=True) if result.reason is not None]
        # A reason may have passed: a disk that failed, full memory.
        if all(isinstance(_make(job, sink), Result) for job in bad):
            return results
    time = os.stat(path).st_mtime_ns if before else 0
    # Never beside another archive than its own.
    Path(f"{path}.json").unlink(missing_ok=True)
    results = []
    with ark.writing(path) as archive:
        for job in jobs:
            made = _make(job, sink)
            if not isinstance(made, Result):
                record, result = made
                made = replace(result, place=archive.add(job.key, record))
            results.append(made)
    if before and (before["digest"], before["size"]) == (archive.digest, archive.size):
        os.utime(path, ns=(time, time))
    said = {"mark": mark.hexdigest(), "size": archive.size, "digest": archive.digest}
    with atomic_write(f"{path}.json") as stream:
        json.dump(said | {"results": [_row(result) for result in results]}, stream)
    return results


def _hear(job: Job) -> Result | tuple["np.ndarray", int, Measures]:
    """Return a job's samples, their rate and measures; or why there are none."""
    try:
        sound = read_sound(job.source, job.start, job.end, job.rate, job.channel)
    except AudioError as error:
        return Result(reason=str(error))
    audio = sound.samples if job.factor == 1 else change_speed(sound.samples, job.factor)
    if len(audio) == 0:
        return Result(reason=f"{job.source}: too short for the speed {job.factor:g}")
    return audio, sound.rate, measure(sound, audio)


def _make(job: Job, sink: Sink) -> Result | tuple[bytes, Result]:
    """Return what an archive is to hold for a job, and its result; or why there is nothing."""
    heard = _hear(job)
    if isinstance(heard, Result):
        return heard
    audio, rate, measures = heard
    try:
        record, shape = sink.record(audio, rate)
    except AudioError as error:
        return Result(reason=f"{job.source}: {error}")
    return record, Result(len(audio), measures, shape=shape, made=True)


def _mark(job: Job, code: Mapping[str, str]) -> str:
    try:
        return f"{job.key} {job.fingerprint(code)}"
    except OSError as error:
        return f"{job.key} {_unreadable(job, error)}"


def _unreadable(job: Job, error: OSError) -> str:
    return f"{job.source}: not readable: {error.strerror or error}"


def _read_part(path: str) -> dict[str, Any] | None:
    """Return what stands beside an archive, or None where one of the two is not whole."""
    with suppress(OSError, ValueError):
        found = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        if os.path.getsize(path) == found["size"]:
            return found
    return None


def _row(result: Result) -> list[Any]:
    return [result.samples, result.measures, result.place, result.shape, result.reason]


def _result(row: list[Any]) -> Result:
    samples, measures, place, shape, reason = row
    return Result(samples, measures and Measures(*measures), place, shape, reason=reason)


def change_speed(samples: "np.ndarray", factor: float) -> "np.ndarray":
    """Play samples ``(time,)`` faster: tempo and pitch change by ``factor``, as in sox ``speed``.

    The result has ``time / factor`` samples and is meant for the same sampling rate.
    """
    return resample(samples, factor, 1.0)


def run_jobs(jobs: Sequence[Job], sink: Sink, nj: int, description: str) -> Iterator[Result]:
    """Run jobs in ``nj`` processes with a progress bar; yield their results in order.

    At the end all files are on the disk.
    """
    sink.remove_leftovers()
    # To find the code takes three times as long as a short utterance.
    code = code_of([__name__, *sink.modules])
    if sink.in_archives:
        # Independent of nj: a run with another number of workers can resume.
        size = min(_MAX_PART, max(_MIN_PART, math.ceil(len(jobs) / _PARTS)))
        parts = [
            Part(sink.archive(number), jobs[start : start + size])
            for number, start in enumerate(range(0, len(jobs), size))
        ]
        for results in map_items(partial(run_part, sink=sink, code=code), parts, nj, description):
            yield from results
        sink.remove_others(len(parts))
        return
    size = max(1, min(_MAX_CHUNK, len(jobs) // (100 * max(1, nj))))
    chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    run, made = partial(_run_chunk, sink=sink, code=code), False
    for results in map_items(run, chunks, nj, description):
        made = made or any(result.made for result in results)
        yield from results
    # Once for all of them, before the tables are written that name them.
    if made:
        os.sync()


def _run_chunk(jobs: Sequence[Job], sink: Sink, code: Mapping[str, str]) -> list[Result]:
    return [run_job(job, sink, code) for job in jobs]


def audio_path(folder: str | Path, key: str, audio_format: str) -> str:
    """Return where a folder's audio of an id lies: spread over 100 folders by a checksum."""
    # An id may hold a slash or begin with a dot; the file's name does neither (half-written files
    # begin with a dot), and may not meet another id's.
    name = key.replace("%", "%25").replace("/", "%2F")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    bucket = f"{zlib.crc32(key.encode()) % 100:02d}"
    return f"{folder}/audio/{bucket}/{name}.{audio_format}"


def format_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    rate: int,
    audio_format: str = "flac",
    nj: int = 1,
    bad_audio: str = "skip",
    keep_references: bool = False,
    channel: int | None = None,
    sink: Sink | None = None,
) -> str:
    """Write a data folder whose audio is one mono file an utterance at one sampling rate.

    Args:
        in_dir: data folder, with or without ``segments``.
        out_dir: folder to write: audio, the tables, ``utt2num_samples``, ``report.tsv``, which
            continues the input's, and :mod:`mambaasr.data.measures`.
        rate: sampling rate [Hz].
        audio_format: flac or wav, 16 bit; flac.ark or wav.ark put up to 1000 of them into one
            file, an archive.
        nj: number of processes.
        bad_audio: skip: utterances whose audio is bad are left out and reported; stop: the
            report is written, but no folder.
        keep_references: keep the transcripts of bad utterances, so that a test set's error rate
            counts them as deleted.
        channel: the channel to take, from 1, where there are several; None is the folder's choice
            (``reco2file_and_channel``), else their average.
        sink: where the audio goes, and as what, instead of audio_format; in ``out_dir``.

    Returns:
        A one-line summary.

    Raises:
        UserError: the folder has a problem, all its audio is bad (or any, with stop), or the
            disk is full.
    """
    folder = DataFolder.read(in_dir, WAVS)
    utts = folder.utterances
    jobs = [
        Job(utt, *folder.source(utt), rate, channel=channel or folder.channel(utt)) for utt in utts
    ]
    sink = sink or Sink(str(out_dir), audio_format)
    results = dict(zip(utts, run_jobs(jobs, sink, nj, f"Format {in_dir}"), strict=True))
    good = {utt: result for utt, result in results.items() if result.reason is None}
    bad = {utt: result.reason for utt, result in results.items() if result.reason is not None}

    output = folder.select(good)
    output.segments = output.channels = None
    output.wav = {utt: result.place for utt, result in good.items()}
    output.utt2num_samples = {utt: result.samples for utt, result in good.items()}
    if any(result.shape for result in good.values()):
        output.scp, output.shapes = FEATURES, {utt: good[utt].shape for utt in good}
    measures = {utt: result.measures for utt, result in good.items()}
    there = sum(not result.made for result in good.values())
    summary = write_formatted(folder, output, out_dir, bad, bad_audio, keep_references, there)
    write_measures(out_dir, measures)
    warn(in_dir, measures, rate)
    return summary


def write_formatted(
    folder: DataFolder,
    output: DataFolder,
    out_dir: str | Path,
    bad: Mapping[str, str],
    bad_audio: str,
    keep_references: bool,
    there: int,
) -> str:
    """Write what is left of a folder, and the report of what is not; return a summary.

    Args:
        folder: the input.
        output: with the utterances that can be used.
        out_dir: where to write.
        bad: of the others, why not.
        bad_audio, keep_references: see :func:`format_folder`.
        there: how many of those kept an earlier run has made.

    Raises:
        UserError: nothing can be used (or some not, with stop), or the disk is full.
    """
    in_dir, kept = folder.path, output.utterances
    dropped = {utt: Dropped(utt, folder.where(utt), reason) for utt, reason in bad.items()}
    report = carry_rows(in_dir, dropped.values(), kept)
    # References without audio, which an earlier formatting kept, are still to be accounted for.
    dropped |= {row.utt: row for row in report if row.utt in folder.text}
    write_report(out_dir, report)
    check_dropped(in_dir, out_dir, kept, list(dropped.values()), bad_audio)
    if keep_references:
        for name in ("text", "utt2spk", "utt2lang"):
            if name in folder.tables():
                output.tables()[name].update(folder.tables()[name].select(dropped))
    output.write(out_dir)
    total = len(kept) + len(dropped)
    summary = f"{in_dir}: {total} utterances in, {len(kept)} kept ({there} were there already)"
    return summary + dropped_summary(list(dropped.values()), out_dir, keep_references)


def check_dropped(
    in_dir: str | Path,
    out_dir: str | Path,
    kept: Sequence[str],
    dropped: Sequence[Dropped],
    bad_audio: str,
) -> None:
    """Raise a :class:`UserError` where no utterance is left, or none may be dropped."""
    if not dropped or (kept and bad_audio == "skip"):
        return
    first = f"{dropped[0].where}: {dropped[0].utt}: {dropped[0].reason}"
    if not kept:
        raise UserError(f"{in_dir}: no utterance can be used, the first is {first}")
    raise UserError(
        f"{first} ({len(dropped)} such utterances, see {out_dir}/report.tsv); "
        "repair the audio, or drop it with --bad_audio skip"
    )


def dropped_summary(
    dropped: Sequence[Dropped], out_dir: str | Path, keep_references: bool = False
) -> str:
    """Return the end of a summary line: how many were dropped, and the report's path."""
    if not dropped:
        return ", 0 dropped"
    kept = ", references kept: they count as deleted" if keep_references else ""
    return f", {len(dropped)} dropped{kept} (see {out_dir}/report.tsv)"
