"""Corpora that lhotse knows, as data folders.

lhotse (https://github.com/lhotse-speech/lhotse) finds the audio and the transcripts of a corpus as
its publisher lays it out; here its manifests become data folders. lhotse leaves out utterances
whose audio is missing and only logs it; where the corpus lists its utterances, they are
put back, so that formatting reports them and a test set loses none. So is what cannot be read,
at which lhotse would give up.

Common Voice, FLEURS, SPGISpeech and VoxPopuli need no lhotse: their lists say all, and no clip is
opened before stage 3.

lhotse takes manifests that it finds for whole and right. So its folder is new each time, and gets
its name when all sets are written.
"""

import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mambaasr.data.folder import DataFolder, Segment
from mambaasr.data.kaldi_file import write_table
from mambaasr.data.known_corpora import CORPORA, Corpus, Manifests
from mambaasr.data.lhotse_mended import UNREADABLE, threads_errors_raised, unreadable_files_pass
from mambaasr.data.text_rules import read_rules, rules_of
from mambaasr.errors import UserError

# Publishers round; what is read from a corpus may be a little less than what was measured.
HOURS_TOLERANCE = 0.05
REMEDY = "make env (or, in an environment of your own: pip install lhotse)"


def prepare_sets(
    name: str,
    corpus_dir: str | Path,
    sets: dict[str, list[str]],
    data_dir: str | Path,
    nj: int = 1,
    text_rules: str | Path | None = None,
) -> dict[str, int]:
    """Write a data folder for each set of a corpus.

    Args:
        name: a key of :data:`CORPORA`.
        corpus_dir: the corpus's folder.
        sets: set -> list of the corpus's parts, which are put together.
        data_dir: where the folders go; lhotse's own files go to ``<data_dir>/.lhotse/<name>``.
        nj: parallel jobs.
        text_rules: see :func:`write_set`.

    Returns:
        set -> number of utterances.

    Raises:
        UserError: lhotse or the corpus is missing, a part is unknown, or lhotse cannot read it.
    """
    corpus = CORPORA.get(name)
    if corpus is None:
        raise UserError(f"there is no corpus {name!r}; there are: {', '.join(CORPORA)}")
    for parts in sets.values():
        for part in parts:
            if not corpus.knows(part):
                known = list(corpus.parts)
                shown = ", ".join(known[:30]) + (", ..." if len(known) > 30 else "")
                raise UserError(f"{name} has no part {part!r}; it has: {shown}")
    corpus_dir = Path(corpus_dir)
    if not str(corpus_dir) or not corpus_dir.is_dir():
        raise UserError(
            f"{corpus_dir}: no such folder: it should hold {corpus.layout}. {corpus.get}; name "
            f"the folder that holds all this: {name.upper()}=FOLDER ./run.sh"
        )
    if corpus.prepare:
        _require_lhotse()
    needed = list(dict.fromkeys(part for parts in sets.values() for part in parts))
    whole = Path(data_dir, ".lhotse", name)
    work = whole.with_name(f"{name}.new")
    shutil.rmtree(work, ignore_errors=True)
    try:
        manifests = {}
        if corpus.prepare:
            with unreadable_files_pass(), threads_errors_raised():
                manifests = corpus.prepare(corpus_dir, needed, work, nj)
        folders = {part: _folder(name, part, corpus_dir, manifests.get(part)) for part in needed}
    except UserError:
        raise
    # Whatever lhotse raises about a corpus (assertions, KeyError, soundfile's errors).
    except Exception as error:
        with suppress(OSError):  # what is there twice, its list names with the line
            for part in needed if corpus.listed else ():
                corpus.listed(corpus_dir, part)
        raise UserError(
            f"{corpus_dir}: lhotse cannot read it as {name}: {type(error).__name__}: {error}. "
            f"It should hold {corpus.layout}"
        ) from error
    counts = {}
    for each, parts in sets.items():
        folder = joined([folders[part] for part in parts])
        write_set(folder, Path(data_dir, each), text_rules)
        counts[each] = len(folder.utterances)
        logging.info(f"{data_dir}/{each}: {counts[each]} utterances")
    shutil.rmtree(whole, ignore_errors=True)
    if work.is_dir():
        work.rename(whole)
    return counts


def of_languages(
    name: str, sets: dict[str, list[str]], languages: Sequence[str]
) -> dict[str, list[str]]:
    """Return sets of splits as sets of parts: each split in each language.

    Args:
        name: a key of :data:`CORPORA`.
        sets: set -> list of splits.
        languages: names, as in the corpus's parts; or "all": those that have every split.

    Raises:
        UserError: the corpus has one language, or any that may be named.
    """
    corpus = CORPORA.get(name, Corpus({}, None, "", ""))
    languages = list(dict.fromkeys(languages))
    if languages == ["all"]:
        splits = {split for splits in sets.values() for split in splits}
        known = dict.fromkeys(part.rpartition("-")[0] for part in corpus.parts)
        languages = [
            each
            for each in known
            if each != "*" and all(f"{each}-{split}" in corpus.parts for split in splits)
        ]
    if corpus.languages is None or not languages:
        raise UserError(
            f"{name} has no list of languages: name parts, or languages with --languages"
        )
    return {
        key: [f"{language}-{split}" for split in splits for language in languages]
        for key, splits in sets.items()
    }


def write_set(folder: DataFolder, path: Path, text_rules: str | Path | None = None) -> None:
    """Write a data folder; by rules of the languages, its transcripts as they were stay beside it.

    Args:
        folder: what to write; its texts are changed.
        path: where to.
        text_rules: file of :func:`mambaasr.data.text_rules.read_rules`, or None. With it the
            texts of before are ``text.raw``.

    Raises:
        UserError: the rules are wrong, or something cannot be written.
    """
    if text_rules is not None:
        rules, raw = read_rules(text_rules), dict(folder.text)
        for utt, text in raw.items():
            language = folder.utt2lang[utt] if folder.utt2lang else None
            folder.text[utt] = rules_of(rules, language).apply(text)
        path.mkdir(parents=True, exist_ok=True)
        write_table(path / "text.raw", raw)
    folder.write(path)


def _require_lhotse() -> None:
    try:
        import lhotse  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lhotse prepares this corpus and cannot be imported ({error}): {REMEDY}"
        ) from None


def _folder(name: str, part: str, corpus_dir: Path, manifests: Manifests | None) -> DataFolder:
    """Return a part as a data folder."""
    corpus = CORPORA[name]
    folder, spans, seconds, no_speech = DataFolder(segments={}), {}, 0.0, 0
    code = corpus.code(part)
    if code is not None:
        folder.utt2lang = {}
    for recording in (manifests or {}).get("recordings", ()):
        sources = recording.sources
        if len(sources) != 1 or sources[0].type != "file":
            raise UserError(f"{recording.id}: it is not one audio file: {sources}")
        key = f"{code}-{recording.id}" if code is not None else recording.id
        folder.wav[key] = str(sources[0].source)
        spans[key] = recording.duration
    for supervision in (manifests or {}).get("supervisions", ()):
        text = supervision.text or ""
        text = corpus.text(text) if corpus.text else text
        if spans.get(supervision.recording_id) != UNREADABLE:
            seconds += supervision.duration
        if text is None:
            no_speech += 1
            continue
        utt, recording = _name(supervision.id), supervision.recording_id
        speaker = _name(supervision.speaker or recording)
        if code is not None:
            utt, recording, speaker = (f"{code}-{each}" for each in (utt, recording, speaker))
            folder.utt2lang[utt] = code
        if utt in folder.text:
            raise UserError(f"{corpus_dir}: {name} {part}: {utt} is there twice")
        folder.text[utt] = " ".join(text.split())
        folder.utt2spk[utt] = speaker
        end = supervision.start + supervision.duration
        folder.segments[utt] = Segment(recording, float(supervision.start), end)
    folder.wav = {key: folder.wav[key] for key in {s.recording for s in folder.segments.values()}}
    if all(
        utt == s.recording and s.start == 0 and abs(s.end - spans[utt]) < 0.01
        for utt, s in folder.segments.items()
    ):
        folder.segments = None
    absent = _absent(corpus, corpus_dir, part, folder)
    damaged = [folder.wav[key] for key in folder.wav if spans.get(key) == UNREADABLE]
    found = len(folder.utterances)
    if not found:
        raise UserError(f"{corpus_dir}: {name} has no utterance of {part} there: {corpus.layout}")
    notes = [f"{absent} of them without audio, which stage 3 reports"] if absent else []
    if damaged:
        notes.append(
            f"{len(damaged)} files that cannot be read (first {damaged[0]}), which stage 3 reports"
        )
    if no_speech:
        notes.append(f"{no_speech} more are no speech and left out")
    whole = _differences(corpus, part, found + no_speech, seconds / 3600)
    if notes or whole:
        said = ", ".join([f"{found} utterances", *notes])
        logging.warning("; ".join([f"{name} {part}: {said}", *whole]))
    return folder


def _differences(corpus: Corpus, part: str, count: int, hours: float) -> list[str]:
    """Say how much more or less there is than the publisher says: a list of one text or none."""
    official, length = corpus.parts.get(part), corpus.hours.get(part)
    whole = [f"{official} utterances"] if official not in (None, count) else []
    # Lists without lhotse's manifests tell no length.
    if hours and length is not None and abs(hours - length) > HOURS_TOLERANCE * length:
        whole.append(f"{length:g} hours (here {hours:.2f})")
    return [f"the whole corpus has {' and '.join(whole)}"] if whole else []


def _absent(corpus: Corpus, corpus_dir: Path, part: str, folder: DataFolder) -> int:
    """Add what the corpus lists and lhotse left out; return the number of utterances added."""
    if corpus.listed is None or folder.segments is not None:
        return 0
    absent = 0
    code = corpus.code(part)
    for utt, (path, speaker, text) in corpus.listed(corpus_dir, part).items():
        cleaned = corpus.text(text) if corpus.text else text
        if cleaned is None:
            continue
        if code is not None:
            utt, speaker = f"{code}-{utt}", f"{code}-{speaker}"
        if utt not in folder.text:
            # What lhotse leaves out has no audio.
            absent += bool(corpus.prepare) or not path.is_file()
            folder.wav[utt], folder.utt2spk[utt] = str(path), speaker
            folder.text[utt] = " ".join(cleaned.split())
            if folder.utt2lang is not None:
                folder.utt2lang[utt] = code
    return absent


def joined(folders: Sequence[DataFolder]) -> DataFolder:
    """Return several parts as one folder; an utterance that two of them have is an error."""
    whole = DataFolder()
    if any(folder.segments is not None for folder in folders):
        whole.segments = {}
    if all(folder.utt2lang is not None for folder in folders):
        whole.utt2lang = {}
    for folder in folders:
        for utt in folder.text:
            if utt in whole.text:
                raise UserError(f"{utt} is in two parts that are to be one set")
        whole.wav.update(folder.wav)
        whole.text.update(folder.text)
        whole.utt2spk.update(folder.utt2spk)
        if whole.utt2lang is not None:
            whole.utt2lang.update(folder.utt2lang)
        if whole.segments is not None:
            if folder.segments is not None:
                whole.segments.update(folder.segments)
            else:
                whole.segments.update({utt: Segment(utt, 0.0, None) for utt in folder.wav})
    return whole


def prefixed(folder: DataFolder, prefix: str) -> DataFolder:
    """Return a folder in which the ids of utterances, recordings and speakers have a prefix."""

    def renamed(table: Mapping[str, str] | None) -> dict[str, str] | None:
        return None if table is None else {f"{prefix}{key}": table[key] for key in table}

    segments = folder.segments
    return DataFolder(
        wav=renamed(folder.wav) or {},
        text=renamed(folder.text) or {},
        utt2spk={f"{prefix}{utt}": f"{prefix}{spk}" for utt, spk in folder.utt2spk.items()},
        utt2lang=renamed(folder.utt2lang),
        segments=segments
        and {
            f"{prefix}{utt}": Segment(f"{prefix}{segment.recording}", segment.start, segment.end)
            for utt, segment in segments.items()
        },
    )


def _name(text: str) -> str:
    return re.sub(r"\s+", "_", str(text))
