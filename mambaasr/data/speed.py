"""Speed perturbation of a data folder (Ko et al., 2015, Audio Augmentation for Speech Recognition).

Recordings are played faster or slower, as by sox ``speed``: tempo and pitch change together.
"""

import math
from pathlib import Path

from mambaasr.data.dropped import Dropped, carry_rows, write_report
from mambaasr.data.folder import WAVS, DataFolder, Segment
from mambaasr.data.format import (
    Job,
    Sink,
    check_dropped,
    dropped_summary,
    run_jobs,
)
from mambaasr.data.measures import warn
from mambaasr.errors import UserError

MIN_FACTOR, MAX_FACTOR = 0.1, 10.0


def parse_factors(text: str) -> dict[float, str]:
    """Return the speed factors of a text like ``0.9 1.0 1.1`` as they are written, by value.

    Raises:
        UserError: not numbers, out of range, or one twice.
    """
    factors = {}
    for word in text.split():
        try:
            factor = float(word)
        except ValueError:
            factor = math.nan
        if not MIN_FACTOR <= factor <= MAX_FACTOR:
            raise UserError(
                f"speed factor {word!r}: write numbers from {MIN_FACTOR} to {MAX_FACTOR} with "
                'spaces between them, as in "0.9 1.0 1.1"'
            )
        if factor in factors:
            raise UserError(f"speed factor {word!r} is given twice; give it once")
        factors[factor] = word
    if not factors:
        raise UserError('no speed factor; write them as in "0.9 1.0 1.1"')
    return factors


def perturb_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    factors: str | dict[float, str],
    nj: int = 1,
    bad_audio: str = "skip",
    channel: int | None = None,
    audio_format: str = "flac",
) -> str:
    """Write a data folder with a copy of each utterance at each speed.

    Ids and speakers of a copy begin with ``sp<factor>-``; the factor 1 keeps ids, speakers and
    audio files as they are. Whole recordings are perturbed; with ``segments``, times follow.

    Args:
        in_dir: data folder.
        out_dir: folder to write; perturbed audio lies below it, 16 bit, mono, at the recording's
            own sampling rate, and ``report.tsv``, which continues the input's.
        factors: see :func:`parse_factors`.
        nj: number of processes.
        bad_audio: skip: copies whose audio is bad are left out and reported; stop: the report
            is written, but no folder.
        channel: see :func:`mambaasr.data.format.format_folder`; the factor 1 leaves the choice,
            where it is the folder's, to formatting.
        audio_format: see :func:`mambaasr.data.format.format_folder`.

    Returns:
        A one-line summary.

    Raises:
        UserError: the folder has a problem, no audio can be used (or some not, with stop), two
            ids become the same, or the disk is full.
    """
    factors = parse_factors(factors) if isinstance(factors, str) else factors
    folder = DataFolder.read(in_dir, WAVS)
    out = DataFolder(path=Path(out_dir))
    out.segments = None if folder.segments is None else {}
    out.utt2lang = None if folder.utt2lang is None else {}
    out.channels = folder.channels if 1 in factors else None
    jobs, dropped = [], []
    for factor, word in factors.items():
        for recording in sorted(folder.wav):
            name = _prefix(factor, word) + recording
            if factor == 1:
                out.wav[name] = folder.wav[recording]
                continue
            chosen = channel or folder.channel_of(recording)
            jobs.append(Job(name, folder.wav[recording], 0, None, factor=factor, channel=chosen))
    reasons, measures = {}, {}
    sink = Sink(str(out_dir), audio_format)
    results = run_jobs(jobs, sink, nj, f"Change speed of {in_dir}")
    for name, result in zip((job.key for job in jobs), results, strict=True):
        if result.reason is None:
            if name in out.wav:
                raise UserError(f"{in_dir}/wav.scp: {name!r} would be there twice; rename it")
            out.wav[name] = result.place
            measures[name] = result.measures
        else:
            reasons[name] = result.reason

    for factor, word in factors.items():
        prefix = _prefix(factor, word)
        for utt in folder.utterances:
            recording = folder.recording(utt)
            if prefix + recording in reasons:
                dropped.append(
                    Dropped(prefix + utt, folder.where(utt), reasons[prefix + recording])
                )
                continue
            if prefix + utt in out.text:
                raise UserError(f"{in_dir}/text: {prefix + utt!r} would be there twice; rename it")
            out.text[prefix + utt] = folder.text[utt]
            out.utt2spk[prefix + utt] = prefix + folder.utt2spk[utt]
            if out.utt2lang is not None:
                out.utt2lang[prefix + utt] = folder.utt2lang[utt]
            if out.segments is not None:
                _, start, end = folder.segments[utt]
                end = None if end is None else end / factor
                out.segments[prefix + utt] = Segment(prefix + recording, start / factor, end)
    write_report(out_dir, carry_rows(in_dir, dropped, out.text))
    check_dropped(in_dir, out_dir, list(out.text), dropped, bad_audio)
    out.write(out_dir)
    warn(in_dir, measures)
    total = len(factors) * len(folder.utterances)
    summary = f"{in_dir}: {len(folder.utterances)} utterances at {len(factors)} speeds: {total} in"
    return f"{summary}, {len(out.text)} kept" + dropped_summary(dropped, out_dir)


def _prefix(factor: float, word: str) -> str:
    return "" if factor == 1 else f"sp{word}-"
