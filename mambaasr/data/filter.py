"""Drop utterances that training cannot use: too short, too long, without text."""

import math
import os
import random
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from pathlib import Path

from mambaasr.data import ark
from mambaasr.data.audio import AudioError, encode_audio, read_header, write_audio
from mambaasr.data.dropped import Dropped, carry_rows, write_report
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import audio_path, dropped_summary
from mambaasr.data.prefix import make_prefixes
from mambaasr.errors import UserError

# Of features that are not ours [s].
FRAME_SHIFT = 0.01


def filter_folder(
    in_dir: str | Path,
    out_dir: str | Path,
    min_duration: float = 0.1,
    max_duration: float = 20.0,
    text_prefix: str = "",
    symbols: Collection[str] = (),
    non_speech_ratio: float = 0.0,
    rate: int | None = None,
) -> str:
    """Write a data folder without the utterances that are too short, too long or have no text.

    References without audio, as formatting keeps them for test sets, are left out too: a test set
    may be the validation set as well. Audio files are not copied. Lengths come from
    ``utt2num_samples`` (one sampling rate in the folder, as formatting makes it), else from the
    files' headers; of features without ``utt2num_samples`` from ``feats_shape``, a frame every
    10 ms.

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
        rate: sampling rate of the audio [Hz]; None: what a file's header says. Features, which
            have no header, need it beside ``utt2num_samples``.

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
    if folder.has_features and non_speech_ratio:
        raise UserError(f"{in_dir}: has features; --non_speech_ratio makes audio: leave it out")
    durations = _durations(folder, rate)
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
    silent = [utt for utt in kept if not good.text[utt].strip()]
    added = round(non_speech_ratio * (len(kept) - len(silent))) - len(silent)
    if added > 0:
        _add_non_speech(good, added, durations, rate or _rate(folder, kept[0]), out_dir)
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
    folder: DataFolder,
    count: int,
    durations: Mapping[str, float],
    rate: int,
    out_dir: str | Path,
) -> None:
    """Write pieces without speech and add them: each as long as an utterance, of its language."""
    from numpy.random import default_rng

    from mambaasr.data.non_speech import make_piece

    kept = folder.utterances
    # What reads archives takes single files for something else.
    kind = Path(ark.file_of(folder.wav[kept[0]])).name.partition(".")[2]
    in_ark = kind.endswith(".ark")
    with ExitStack() as stack:
        path = f"{out_dir}/audio/non_speech.{kind}"
        archive = stack.enter_context(ark.writing(path)) if in_ark else None
        for number in range(count):
            like = kept[random.Random(number).randrange(len(kept))]
            utt, samples = f"non_speech-{number:06d}", round(durations[like] * rate)
            piece = make_piece(samples, rate, default_rng(number))
            if archive:
                file = encode_audio(piece, rate, kind.removesuffix(".ark")).getvalue()
                folder.wav[utt] = archive.add(utt, ark.audio_record(file))
            else:
                folder.wav[utt] = audio_path(out_dir, utt, "flac")
                write_audio(folder.wav[utt], piece, rate, sync=False)
            folder.text[utt], folder.utt2spk[utt] = "", "non_speech"
            if folder.utt2lang is not None:
                folder.utt2lang[utt] = folder.utt2lang[like]
            if folder.utt2num_samples is not None:
                folder.utt2num_samples[utt] = samples
    # Once for all of them, before the tables are written that name them.
    os.sync()


def _durations(folder: DataFolder, rate: int | None) -> Mapping[str, float | AudioError]:
    """Return utterance -> duration [s], or why its file does not say it."""
    if folder.utt2num_samples is not None and (rate or not folder.has_features):
        rate = rate or _rate(folder, folder.utterances[0])
        return {utt: samples / rate for utt, samples in folder.utt2num_samples.items()}
    if folder.has_features:
        if folder.shapes is None:
            raise UserError(f"{folder.path}: no feats_shape; run store_features first")
        return {
            utt: int(shape.partition(",")[0]) * FRAME_SHIFT for utt, shape in folder.shapes.items()
        }
    found: dict[str, float | AudioError] = {}
    for utt in folder.utterances:
        try:
            found[utt] = read_header(folder.wav[utt]).duration
        except AudioError as error:
            found[utt] = AudioError(f"{folder.where(utt)}: {error}; run format_audio")
    return found


def _rate(folder: DataFolder, utt: str) -> int:
    try:
        return read_header(folder.wav[utt]).samplerate
    except AudioError as error:
        raise AudioError(f"{folder.where(utt)}: {error}; run format_audio") from error
