"""Corpora that lhotse knows, as data folders.

lhotse (https://github.com/lhotse-speech/lhotse) finds the audio and the transcripts of a corpus as
its publisher lays it out; here its manifests become data folders. lhotse leaves out utterances
whose audio is missing and only logs it; where the corpus lists its utterances, they are
put back, so that formatting reports them and a test set loses none. So is what cannot be read,
at which lhotse would give up.

lhotse takes manifests that it finds for whole and right. So its folder is new each time, and gets
its name when all sets are written.
"""

import functools
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mambaasr.data.folder import DataFolder, Segment
from mambaasr.data.lhotse_mended import UNREADABLE, threads_errors_raised, unreadable_files_pass
from mambaasr.errors import UserError

REMEDY = "make env (or, in an environment of your own: pip install lhotse)"
# lhotse's manifests of one part: "recordings" and "supervisions".
Manifests = dict[str, Any]
# Utterance -> (audio file, speaker, transcript).
Listed = dict[str, tuple[Path, str, str]]


@dataclass(frozen=True)
class Corpus:
    """What there is to know of a corpus.

    Attributes:
        parts: the parts' names, as lhotse has them, and how many utterances each one has (None:
            not known here).
        prepare: ``(corpus_dir, parts, work_dir, nj) -> {part: manifests}``.
        layout: what lies in the corpus's folder, for the message when it does not.
        get: how to get the corpus.
        listed: ``(corpus_dir, part) -> {utterance: (path, speaker, text)}``, or None where the
            corpus has no list that names files.
        text: cleans a transcript; None as a result drops the utterance, which is no speech.
        languages: lhotse's names of languages -> codes, for a corpus of several: ``utt2lang`` is
            written, and ids begin with the code.
    """

    parts: dict[str, int | None]
    prepare: Callable[[Path, list[str], Path, int], dict[str, Manifests]]
    layout: str
    get: str
    listed: Callable[[Path, str], Listed] | None = None
    text: Callable[[str], str | None] | None = None
    languages: dict[str, str] | None = None


def prepare_sets(
    name: str, corpus_dir: str | Path, sets: dict[str, list[str]], data_dir: str | Path, nj: int = 1
) -> dict[str, int]:
    """Write a data folder for each set of a corpus.

    Args:
        name: a key of :data:`CORPORA`.
        corpus_dir: the corpus's folder.
        sets: set -> list of the corpus's parts, which are put together.
        data_dir: where the folders go; lhotse's own files go to ``<data_dir>/.lhotse/<name>``.
        nj: parallel jobs.

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
            if part not in corpus.parts:
                known = ", ".join(corpus.parts)
                raise UserError(f"{name} has no part {part!r}; it has: {known}")
    corpus_dir = Path(corpus_dir)
    if not str(corpus_dir) or not corpus_dir.is_dir():
        raise UserError(
            f"{corpus_dir}: no such folder: it should hold {corpus.layout}. {corpus.get}; name "
            f"the folder that holds all this: {name.upper()}=FOLDER ./run.sh"
        )
    _require_lhotse()
    needed = list(dict.fromkeys(part for parts in sets.values() for part in parts))
    whole = Path(data_dir, ".lhotse", name)
    work = whole.with_name(f"{name}.new")
    shutil.rmtree(work, ignore_errors=True)
    try:
        with unreadable_files_pass(), threads_errors_raised():
            manifests = corpus.prepare(corpus_dir, needed, work, nj)
    except UserError:
        raise
    # Whatever lhotse raises about a corpus (assertions, KeyError, soundfile's errors).
    except Exception as error:
        raise UserError(
            f"{corpus_dir}: lhotse cannot read it as {name}: {type(error).__name__}: {error}. "
            f"It should hold {corpus.layout}"
        ) from error
    folders = {part: _folder(name, part, corpus_dir, manifests.get(part)) for part in needed}
    counts = {}
    for each, parts in sets.items():
        folder = joined([folders[part] for part in parts])
        folder.write(Path(data_dir, each))
        counts[each] = len(folder.utterances)
        logging.info(f"{data_dir}/{each}: {counts[each]} utterances")
    shutil.rmtree(whole, ignore_errors=True)
    if work.is_dir():
        work.rename(whole)
    return counts


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
    folder, spans = DataFolder(segments={}), {}
    if corpus.languages:
        folder.utt2lang = {}
        code = corpus.languages[part.partition("-")[0]]
    for recording in (manifests or {}).get("recordings", ()):
        sources = recording.sources
        if len(sources) != 1 or sources[0].type != "file":
            raise UserError(f"{recording.id}: it is not one audio file: {sources}")
        key = f"{code}-{recording.id}" if corpus.languages else recording.id
        folder.wav[key] = str(sources[0].source)
        spans[key] = recording.duration
    for supervision in (manifests or {}).get("supervisions", ()):
        text = supervision.text or ""
        text = corpus.text(text) if corpus.text else text
        if text is None:
            continue
        utt, recording = _name(supervision.id), supervision.recording_id
        speaker = _name(supervision.speaker or recording)
        if corpus.languages:
            utt, recording, speaker = (f"{code}-{each}" for each in (utt, recording, speaker))
            folder.utt2lang[utt] = code
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
    expected, found = corpus.parts[part], len(folder.utterances)
    if not found:
        raise UserError(f"{corpus_dir}: {name} has no utterance of {part} there: {corpus.layout}")
    notes = [f"{absent} of them without audio, which stage 3 reports"] if absent else []
    if damaged:
        notes.append(
            f"{len(damaged)} files that cannot be read (first {damaged[0]}), which stage 3 reports"
        )
    if notes or (expected is not None and found != expected):
        whole = f"; the whole corpus has {expected}" if expected not in (None, found) else ""
        logging.warning(f"{name} {part}: {', '.join([f'{found} utterances', *notes])}{whole}")
    return folder


def _absent(corpus: Corpus, corpus_dir: Path, part: str, folder: DataFolder) -> int:
    """Add what the corpus lists and lhotse left out; return the number of utterances added."""
    if corpus.listed is None or folder.segments is not None:
        return 0
    absent = 0
    for utt, (path, speaker, text) in corpus.listed(corpus_dir, part).items():
        if utt not in folder.text:
            absent += 1
            folder.wav[utt], folder.utt2spk[utt] = str(path), speaker
            folder.text[utt] = " ".join(text.split())
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


def _name(text: str) -> str:
    return re.sub(r"\s+", "_", str(text))


def _librispeech(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_librispeech

    for part in parts:
        if not (corpus_dir / part).is_dir():
            raise UserError(f"{corpus_dir / part}: no such folder; {CORPORA['librispeech'].get}")
    return prepare_librispeech(corpus_dir, dataset_parts=parts, num_jobs=nj)


def _librispeech_listed(corpus_dir: Path, part: str) -> Listed:
    found = {}
    for path in sorted((corpus_dir / part).rglob("*.trans.txt")):
        for line in path.read_text(encoding="utf-8").splitlines():
            utt, _, text = line.strip().partition(" ")
            if utt:
                found[utt] = (path.parent / f"{utt}.flac", utt.partition("-")[0], text)
    return found


def _aishell(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_aishell

    for part in parts:
        folder = corpus_dir / "data_aishell/wav" / part
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder: unpack data_aishell/wav/*.tar.gz there")
    return prepare_aishell(corpus_dir)


def _aishell_listed(corpus_dir: Path, part: str) -> Listed:
    """Return the utterances of the transcripts whose speaker's folder lies in a part."""
    speakers = {path.name: path for path in (corpus_dir / "data_aishell/wav" / part).iterdir()}
    found = {}
    path = corpus_dir / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    for line in path.read_text(encoding="utf-8").splitlines():
        utt, _, text = line.strip().partition(" ")
        # BAC009S0002W0122: the speaker is S0002.
        folder = speakers.get(utt[6:11])
        if folder is not None:
            found[utt] = (folder / f"{utt}.wav", folder.name, text.replace(" ", ""))
    return found


def _tedlium(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.audio.backend import audio_backend
    from lhotse.recipes import prepare_tedlium

    # By itself lhotse wants sph2pipe for SPHERE files; libsndfile reads those of this corpus.
    with audio_backend("LibsndfileBackend"):
        return prepare_tedlium(corpus_dir, dataset_parts=parts, num_jobs=nj)


def _tedlium_text(text: str) -> str:
    """Join what TED-LIUM writes apart ("it 's"), and leave out what no word is known for."""
    return re.sub(r" '", "'", text.replace("<unk>", " ").replace("[NOISE]", " "))


def _gigaspeech(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    try:
        import speechcolab  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"lhotse reads GigaSpeech with speechcolab, which cannot be imported ({error}): "
            "uv pip install speechcolab"
        ) from None
    from lhotse.recipes import prepare_gigaspeech

    return prepare_gigaspeech(corpus_dir, work, dataset_parts=parts, num_jobs=nj)


def _gigaspeech_text(text: str) -> str | None:
    """Leave out punctuation marks; what holds <SIL>, <NOISE>, <MUSIC> or <OTHER> is no speech."""
    if re.search("<(SIL|NOISE|MUSIC|OTHER)>", text):
        return None
    return re.sub("<(COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>", " ", text)


def _spgispeech(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_spgispeech

    return prepare_spgispeech(corpus_dir, work, normalize_text=False, num_jobs=nj)


def _spgispeech_text(text: str) -> str:
    """Leave out case and punctuation but the apostrophe, which lhotse would drop as well."""
    return re.sub(r"[^\w' ]", " ", text.lower())


def _csj(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_csj

    return prepare_csj(corpus_dir, work / "transcripts", work, dataset_parts=parts, nj=nj)


def _mls(corpus_dir: Path, parts: list[str], work: Path, nj: int) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_mls

    names = {part.partition("-")[0] for part in parts}
    opus = any((corpus_dir / f"mls_{name}_opus").is_dir() for name in names)
    for name in names:
        folder = corpus_dir / f"mls_{name}{'_opus' if opus else ''}"
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder: unpack {folder.name}.tar.gz there")
    found = prepare_mls(corpus_dir, work, opus=opus, num_jobs=nj)
    return {part: found[part.partition("-")[0]][part.partition("-")[2]] for part in parts}


def _without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


_MLS = {
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "italian": "it",
    "polish": "pl",
    "portuguese": "pt",
    "spanish": "es",
}
_OPENSLR = functools.partial("lhotse download {} DIR downloads it".format)
CORPORA = {
    "librispeech": Corpus(
        {
            "train-clean-100": 28539,
            "train-clean-360": 104014,
            "train-other-500": 148688,
            "dev-clean": 2703,
            "dev-other": 2864,
            "test-clean": 2620,
            "test-other": 2939,
        },
        _librispeech,
        "train-clean-100, dev-clean, test-clean and the like (the folder LibriSpeech itself)",
        _OPENSLR("librispeech --full"),
        _librispeech_listed,
    ),
    "aishell": Corpus(
        {"train": 120098, "dev": 14326, "test": 7176},
        _aishell,
        "data_aishell/wav and data_aishell/transcript",
        _OPENSLR("aishell"),
        _aishell_listed,
    ),
    "tedlium3": Corpus(
        {"train": None, "dev": None, "test": None},
        _tedlium,
        "legacy/{train,dev,test}/{sph,stm} (the folder TEDLIUM_release-3 itself)",
        _OPENSLR("tedlium"),
        text=_tedlium_text,
    ),
    "gigaspeech": Corpus(
        {"XS": None, "S": None, "M": None, "L": None, "XL": None, "DEV": None, "TEST": None},
        _gigaspeech,
        "GigaSpeech.json and audio/",
        "https://github.com/SpeechColab/GigaSpeech tells how to get it",
        text=_gigaspeech_text,
    ),
    "spgispeech": Corpus(
        {"train": None, "val": None},
        _spgispeech,
        "train.csv, val.csv and spgispeech/{train,val}",
        "https://datasets.kensho.com/datasets/spgispeech tells how to get it",
        text=_spgispeech_text,
    ),
    "csj": Corpus(
        {"core": None, "noncore": None, "eval1": None, "eval2": None, "eval3": None},
        _csj,
        "the corpus as its publisher sells it, with MORPH/SDB and WAV",
        "https://clrd.ninjal.ac.jp/csj tells how to get it",
        text=_without_spaces,
    ),
    "mls": Corpus(
        {f"{name}-{split}": None for name in _MLS for split in ("train", "dev", "test")},
        _mls,
        "mls_german, mls_french and the like (or mls_german_opus ...)",
        "https://www.openslr.org/94 has it",
        languages=_MLS,
    ),
}
