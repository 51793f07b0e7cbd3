"""The corpora that lhotse prepares: how they are called, what lies where, how texts are cleaned."""

import csv
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mambaasr.errors import UserError

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
        prepare: ``(corpus_dir, parts, work_dir, nj) -> {part: manifests}``; None where the list
            of a part says all, and no audio needs to be opened.
        layout: what lies in the corpus's folder, for the message when it does not.
        get: how to get the corpus.
        listed: ``(corpus_dir, part) -> {utterance: (path, speaker, text)}``, or None where the
            corpus has no list that names files.
        text: cleans a transcript; None as a result drops the utterance, which is no speech.
        languages: lhotse's names of languages -> codes, for a corpus of several, whose parts are
            called ``<name>-<split>``: ``utt2lang`` is written, and ids begin with the code.
    """

    parts: dict[str, int | None]
    prepare: Callable[[Path, list[str], Path, int], dict[str, Manifests]] | None
    layout: str
    get: str
    listed: Callable[[Path, str], Listed] | None = None
    text: Callable[[str], str | None] | None = None
    languages: dict[str, str] | None = None


def _librispeech(
    corpus_dir: Path, parts: list[str], work: Path, nj: int, name: str = "librispeech"
) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_librispeech

    for part in parts:
        if not (corpus_dir / part).is_dir():
            raise UserError(f"{corpus_dir / part}: no such folder; {CORPORA[name].get}")
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
    opus = any(_mls_folder(corpus_dir, name).name.endswith("_opus") for name in names)
    for name in names:
        folder = corpus_dir / f"mls_{name}{'_opus' if opus else ''}"
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder: unpack {folder.name}.tar.gz there")
    found = prepare_mls(corpus_dir, work, opus=opus, num_jobs=nj)
    return {part: found[part.partition("-")[0]][part.partition("-")[2]] for part in parts}


def _mls_folder(corpus_dir: Path, language: str) -> Path:
    opus = corpus_dir / f"mls_{language}_opus"
    return opus if opus.is_dir() else corpus_dir / f"mls_{language}"


def _mls_listed(corpus_dir: Path, part: str) -> Listed:
    language, _, split = part.partition("-")
    folder = _mls_folder(corpus_dir, language)
    suffix = "opus" if folder.name.endswith("_opus") else "flac"
    found = {}
    for line in (folder / split / "transcripts.txt").read_text(encoding="utf-8").splitlines():
        utt, _, text = line.partition("\t")
        # 10_20_000000: speaker 10 reads book 20.
        speaker, _, rest = utt.partition("_")
        book = rest.partition("_")[0]
        found[utt] = (folder / split / f"audio/{speaker}/{book}/{utt}.{suffix}", speaker, text)
    return found


def _commonvoice_listed(corpus_dir: Path, part: str) -> Listed:
    """Return the clips of a split: sentences are quoted as they come, and one may be empty."""
    language, _, split = part.rpartition("-")
    path = corpus_dir / language / f"{split}.tsv"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {CORPORA['commonvoice'].get}")
    found = {}
    with open(path, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        lacking = {"client_id", "path", "sentence"} - set(rows.fieldnames or ())
        if lacking:
            raise UserError(f"{path}:1: no column {', '.join(sorted(lacking))}")
        for row in rows:
            name = row["path"]
            if not name or not row["client_id"] or "/" in name:
                raise UserError(f"{path}:{rows.line_num}: no clip or no speaker: {name!r}")
            # Older releases leave the suffix out.
            clip = name if Path(name).suffix else f"{name}.mp3"
            utt = Path(clip).stem
            if utt in found:
                raise UserError(f"{path}:{rows.line_num}: {utt} is there twice")
            clip_path = corpus_dir / language / "clips" / clip
            found[utt] = (clip_path, row["client_id"], row["sentence"] or "")
    return found


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
_MINI = "mini_librispeech"
# The languages of Common Voice 6.1 and some of those that came later; a code is the folder's name.
_COMMONVOICE = (
    "ab ar as be bg bn br ca cs cv cy da de dv el en eo es et eu fa fi fr fy-NL ga-IE gl ha hi hsb "
    "hu ia id it ja ka kab kk ky lg lt lv mk ml mn mr mt nl or pa-IN pl pt rm-sursilv rm-vallader "
    "ro ru rw sah sk sl sr sv-SE sw ta th tr tt ug uk ur uz vi vot zh-CN zh-HK zh-TW"
).split()
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
    _MINI: Corpus(
        {"train-clean-5": 1519, "dev-clean-2": 1089, "test-clean": 2620},
        functools.partial(_librispeech, name=_MINI),
        "train-clean-5 and test-clean (a folder LibriSpeech)",
        "MINI_LIBRISPEECH=downloads ./run.sh downloads it",
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
    "commonvoice": Corpus(
        {
            f"{code}-{split}": None
            for code in _COMMONVOICE
            for split in ("train", "dev", "test", "validated", "invalidated", "other")
        },
        None,
        "a folder a language (cy, de, zh-CN, ...) with train.tsv, dev.tsv, test.tsv and clips/",
        "https://commonvoice.mozilla.org/datasets has it, an archive a language",
        _commonvoice_listed,
        languages={code: code for code in _COMMONVOICE},
    ),
    "mls": Corpus(
        {f"{name}-{split}": None for name in _MLS for split in ("train", "dev", "test")},
        _mls,
        "mls_german, mls_french and the like (or mls_german_opus ...)",
        "https://www.openslr.org/94 has it",
        _mls_listed,
        languages=_MLS,
    ),
}
