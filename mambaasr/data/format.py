"""Audio of a data folder, written anew: one mono file an utterance, at one rate.

Speed perturbation is the same work with a resampling in the middle, so it is done here too.
The work is resumable: each written file carries a fingerprint of its source, options and code in
its header. After a kill or a change of inputs, files that are whole and carry the right
fingerprint stay; all others are made again.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mambaasr.data.audio import AudioError, finished, read_sound, resample, write_audio
from mambaasr.data.dropped import Dropped, carry_rows, write_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.measures import Measures, measure, warn, write_measures
from mambaasr.errors import UserError
from mambaasr.parallel import map_items
from mambaasr.source import code_of

if TYPE_CHECKING:
    import numpy as np

FORMATS = ("flac", "wav")
# Small pieces spread long utterances over the workers, large ones save on handing out work.
_MAX_CHUNK = 64


@dataclass(frozen=True)
class Job:
    """One audio file to make.

    Attributes:
        source: audio file.
        start, end: the stretch to take [s]; end None is the file's end.
        target: file to write; its suffix is the format.
        rate: sampling rate [Hz] to write; None keeps the source's.
        factor: speed factor, 1 changes nothing.
        channel: the channel to take, from 1; None averages them.
    """

    source: str
    start: float
    end: float | None
    target: str
    rate: int | None = None
    factor: float = 1.0
    channel: int | None = None

    def fingerprint(self, code: Mapping[str, str]) -> str:
        """Return a text that changes with the source (by time and size), options and code."""
        state = os.stat(self.source)
        facts = [self.source, state.st_size, state.st_mtime_ns, code]
        facts += [self.start, self.end, self.rate, self.factor, self.channel]
        return "mambaasr " + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@dataclass(frozen=True)
class Result:
    """Outcome of a job: how many samples were written and what they are, or why none were."""

    samples: int | None = None
    measures: Measures | None = None
    made: bool = False
    reason: str | None = None


def run_job(job: Job, code: Mapping[str, str]) -> Result:
    """Make one audio file unless it is there and right, by this code; return a :class:`Result`.

    Raises:
        UserError: the file cannot be written, or the disk is full.
    """
    try:
        fingerprint = job.fingerprint(code)
        found = finished(job.target, fingerprint)
        if found is not None:
            return Result(found[0], Measures.from_text(found[1]))
        sound = read_sound(job.source, job.start, job.end, job.rate, job.channel)
    except AudioError as error:
        return Result(reason=str(error))
    except OSError as error:
        return Result(reason=f"{job.source}: not readable: {error.strerror or error}")
    audio = sound.samples if job.factor == 1 else change_speed(sound.samples, job.factor)
    if len(audio) == 0:
        return Result(reason=f"{job.source}: too short for the speed {job.factor:g}")
    measures = measure(sound, audio)
    comment = f"{fingerprint} {measures.to_text()}"
    kind = Path(job.target).suffix[1:]
    write_audio(job.target, audio, sound.rate, kind, comment, sync=False)
    return Result(len(audio), measures, made=True)


def change_speed(samples: "np.ndarray", factor: float) -> "np.ndarray":
    """Play samples ``(time,)`` faster: tempo and pitch change by ``factor``, as in sox ``speed``.

    The result has ``time / factor`` samples and is meant for the same sampling rate.
    """
    return resample(samples, factor, 1.0)


def run_jobs(jobs: Sequence[Job], nj: int, description: str) -> Iterator[Result]:
    """Run jobs in ``nj`` processes with a progress bar; yield their results in order.

    At the end all files are on the disk.
    """
    size = max(1, min(_MAX_CHUNK, len(jobs) // (100 * max(1, nj))))
    chunks = [jobs[i : i + size] for i in range(0, len(jobs), size)]
    # To find the code takes three times as long as a short utterance.
    run, made = partial(_run_chunk, code=code_of([__name__])), False
    for results in map_items(run, chunks, nj, description):
        made = made or any(result.made for result in results)
        yield from results
    # Once for all of them, before the tables are written that name them.
    if made:
        os.sync()


def _run_chunk(jobs: Sequence[Job], code: Mapping[str, str]) -> list[Result]:
    return [run_job(job, code) for job in jobs]


def audio_path(folder: str | Path, key: str, audio_format: str) -> str:
    """Return where a folder's audio of an id lies: spread over 100 folders by a checksum."""
    # An id may hold a slash or begin with a dot; the file's name does neither (half-written files
    # begin with a dot), and may not meet another id's.
    name = key.replace("%", "%25").replace("/", "%2F")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    bucket = f"{zlib.crc32(key.encode()) % 100:02d}"
    return f"{folder}/audio/{bucket}/{name}.{audio_format}"


def remove_leftovers(folder: str | Path) -> None:
    """Remove the half-written files of a killed run."""
    for name in FORMATS:
        for path in Path(folder).glob(f"audio/*/.*.{name}.*"):
            path.unlink(missing_ok=True)


def format_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    rate: int,
    audio_format: str = "flac",
    nj: int = 1,
    bad_audio: str = "skip",
    keep_references: bool = False,
    channel: int | None = None,
) -> str:
    """Write a data folder whose audio is one mono file an utterance at one sampling rate.

    Args:
        in_dir: data folder, with or without ``segments``.
        out_dir: folder to write: audio, the tables, ``utt2num_samples``, ``report.tsv``, which
            continues the input's, and :mod:`mambaasr.data.measures`.
        rate: sampling rate [Hz].
        audio_format: flac or wav, 16 bit.
        nj: number of processes.
        bad_audio: skip: utterances whose audio is bad are left out and reported; stop: the
            report is written, but no folder.
        keep_references: keep the transcripts of bad utterances, so that a test set's error rate
            counts them as deleted.
        channel: the channel to take, from 1, where there are several; None is the folder's choice
            (``reco2file_and_channel``), else their average.

    Returns:
        A one-line summary.

    Raises:
        UserError: the folder has a problem, all its audio is bad (or any, with stop), or the
            disk is full.
    """
    folder = DataFolder.read(in_dir)
    utts = folder.utterances
    targets = {utt: audio_path(out_dir, utt, audio_format) for utt in utts}
    jobs = [
        Job(*folder.source(utt), targets[utt], rate, channel=channel or folder.channel(utt))
        for utt in utts
    ]
    remove_leftovers(out_dir)
    results = dict(zip(utts, run_jobs(jobs, nj, f"Format {in_dir}"), strict=True))

    dropped = {
        utt: Dropped(utt, folder.where(utt), result.reason)
        for utt, result in results.items()
        if result.reason is not None
    }
    kept = [utt for utt in utts if utt not in dropped]
    report = carry_rows(in_dir, dropped.values(), kept)
    # References without audio, which an earlier formatting kept, are still to be accounted for.
    dropped |= {row.utt: row for row in report if row.utt in folder.text}
    write_report(out_dir, report)
    check_dropped(in_dir, out_dir, kept, list(dropped.values()), bad_audio)

    output = folder.select(kept)
    output.segments = output.channels = None
    output.wav = {utt: targets[utt] for utt in kept}
    output.utt2num_samples = {utt: results[utt].samples for utt in kept}
    if keep_references:
        for name in ("text", "utt2spk", "utt2lang"):
            if name in folder.tables():
                output.tables()[name].update(folder.tables()[name].select(dropped))
    measures = {utt: results[utt].measures for utt in kept}
    write_measures(out_dir, measures)
    output.write(out_dir)
    warn(in_dir, measures, rate)
    made = sum(result.made for result in results.values())
    there = len(kept) - made
    total = len(kept) + len(dropped)
    summary = f"{in_dir}: {total} utterances in, {len(kept)} kept ({there} were there already)"
    return summary + dropped_summary(dropped, out_dir, keep_references)


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
