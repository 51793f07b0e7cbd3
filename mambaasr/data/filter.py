"""Drop utterances that training cannot use: too short, too long, without text."""

import math
import os
import random
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mambaasr.data.audio import AudioError, write_audio
from mambaasr.data.dropped import Dropped, carry_rows, write_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import audio_path, dropped_summary
from mambaasr.data.prefix import make_prefixes
from mambaasr.errors import UserError

if TYPE_CHECKING:
    import soundfile


def filter_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    min_duration: float = 0.1,
    max_duration: float = 20.0,
    text_prefix: str = "",
    symbols: Collection[str] = (),
    non_speech_ratio: float = 0.0,
) -> str:
    """Write a data folder without the utterances that are too short, too long or have no text.

    References without audio, as formatting keeps them for test sets, are left out too: a test set
    may be the validation set as well. Audio files are not copied. Lengths come from
    ``utt2num_samples`` (one sampling rate in the folder, as formatting makes it), else from the
    files' headers.

    Args:
        in_dir: formatted data folder, without ``segments``.
        out_dir: folder to write, with ``report.tsv``, which continues the input's.
        min_duration: shortest duration that is kept [s].
        max_duration: longest duration that is kept [s].
        text_prefix: task tokens to write before each transcript; see :mod:`mambaasr.data.prefix`.
        symbols: the non-linguistic symbols, among which those of the prefix must be.
        non_speech_ratio: utterances without speech for each one with a transcript. If it is above
            0, those that have an empty transcript are kept, and silence and noise with empty
            transcripts is added up to that ratio (:mod:`mambaasr.data.non_speech`), so that a
            model learns to say nothing where nothing is said. Its audio is written.

    Returns:
        A one-line summary.

    Raises:
        UserError: the folder has a problem, no utterance is left, or a prefix cannot be made.
    """
    if not 0 <= non_speech_ratio <= 1:
        raise UserError(f"--non_speech_ratio {non_speech_ratio:g}: give 0 to 1, such as 0.02")
    if not 0 <= min_duration <= max_duration or math.isnan(max_duration):
        raise UserError(
            f"durations from {min_duration:g} s to {max_duration:g} s leave nothing; "
            "give a minimum of at least 0 and below the maximum"
        )
    if str(in_dir) == str(out_dir):
        raise UserError(f"{in_dir}: name another folder for the output; the input would be lost")
    folder = DataFolder.read(in_dir)
    if folder.segments is not None:
        raise UserError(f"{in_dir}: has segments; run format_audio first")
    durations = _durations(folder)
    kept, dropped = [], []
    for utt in folder.utterances:
        duration = durations[utt]
        if isinstance(duration, AudioError):
            where, reason = folder.where(utt), str(duration)
        elif duration < min_duration:
            where, reason = folder.where(utt), f"too short: {duration:g} s < {min_duration:g} s"
        elif duration > max_duration:
            where, reason = folder.where(utt), f"too long: {duration:g} s > {max_duration:g} s"
        elif not (folder.text[utt].strip() or non_speech_ratio):
            where, reason = folder.text.where(utt), "empty text"
        else:
            kept.append(utt)
            continue
        dropped.append(Dropped(utt, where, reason))
    report = carry_rows(in_dir, dropped, kept)
    write_report(out_dir, report)
    if not kept:
        raise UserError(f"{in_dir}: no utterance is left (see {out_dir}/report.tsv)")
    good = folder.select(kept)
    rate = _header(folder, kept[0]).samplerate
    silent = [utt for utt in kept if not good.text[utt].strip()]
    added = round(non_speech_ratio * (len(kept) - len(silent))) - len(silent)
    for number in range(max(added, 0)):
        like = kept[random.Random(number).randrange(len(kept))]
        _add_non_speech(good, number, like, durations[like], rate, out_dir)
    if added > 0:
        # Once for all of them, before the tables are written that name them.
        os.sync()
    if text_prefix.strip():
        for utt, prefix in make_prefixes(text_prefix, good, symbols).items():
            good.text[utt] = f"{prefix} {good.text[utt]}".strip()
    good.write(out_dir)
    dropped += [row for row in report if row.utt in folder.text and row.utt not in folder.audio]
    summary = f"{in_dir}: {len(kept) + len(dropped)} utterances in, {len(kept)} kept"
    if non_speech_ratio:
        summary += f" ({len(silent)} without speech), {max(added, 0)} without speech made"
    return summary + dropped_summary(dropped, out_dir)


def _add_non_speech(
    folder: DataFolder, number: int, like: str, duration: float, rate: int, out_dir: str | Path
) -> None:
    """Write a piece without speech and add it: as long as an utterance, and of its language."""
    from numpy.random import default_rng

    from mambaasr.data.non_speech import make_piece

    utt = f"non_speech-{number:06d}"
    path = audio_path(out_dir, utt, "flac")
    samples = round(duration * rate)
    write_audio(path, make_piece(samples, rate, default_rng(number)), rate, sync=False)
    folder.wav[utt], folder.text[utt], folder.utt2spk[utt] = path, "", "non_speech"
    if folder.utt2lang is not None:
        folder.utt2lang[utt] = folder.utt2lang[like]
    if folder.utt2num_samples is not None:
        folder.utt2num_samples[utt] = samples


def _durations(folder: DataFolder) -> Mapping[str, float | AudioError]:
    """Return utterance -> duration [s], or why its file does not say it."""
    if folder.utt2num_samples is not None:
        rate = _header(folder, folder.utterances[0]).samplerate
        return {utt: samples / rate for utt, samples in folder.utt2num_samples.items()}
    found: dict[str, float | AudioError] = {}
    for utt in folder.utterances:
        try:
            found[utt] = _header(folder, utt).duration
        except AudioError as error:
            found[utt] = error
    return found


def _header(folder: DataFolder, utt: str) -> "soundfile._SoundFileInfo":
    """Return soundfile's information on an utterance's file."""
    import soundfile

    try:
        return soundfile.info(folder.wav[utt])
    except Exception as error:  # whatever libsndfile's interface raises
        raise AudioError(
            f"{folder.where(utt)}: {folder.wav[utt]}: not readable: {error}; run format_audio"
        ) from error
