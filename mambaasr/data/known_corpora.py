"""The corpora that are known: how they are called, what lies where, how texts are cleaned."""

import csv
import functools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mambaasr.data.json_list import json_items
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
        languages: names of languages -> codes, where they differ, for a corpus of several, whose
            parts are called ``<name>-<split>``: ``utt2lang`` is written, and ids begin with the
            code. A part ``*-<split>`` stands for any language.
        hours: part -> how long its utterances are together by its publisher, where that is known.
    """

    parts: dict[str, int | None]
    prepare: Callable[[Path, list[str], Path, int], dict[str, Manifests]] | None
    layout: str
    get: str
    listed: Callable[[Path, str], Listed] | None = None
    text: Callable[[str], str | None] | None = None
    languages: dict[str, str] | None = None
    hours: dict[str, float] = field(default_factory=dict)

    def knows(self, part: str) -> bool:
        """Say whether there is such a part."""
        return part in self.parts or _any_language(part) in self.parts

    def code(self, part: str) -> str | None:
        """Return the code of a part's language, None for a corpus of one."""
        name = part.rpartition("-")[0]
        return None if self.languages is None else self.languages.get(name, name)


def _any_language(part: str) -> str:
    return re.sub(r"^\w[\w-]*(?=-)", "*", part)


def _librispeech(
    corpus_dir: Path, parts: list[str], work: Path, nj: int, name: str = "librispeech"
) -> dict[str, Manifests]:
    from lhotse.recipes import prepare_librispeech

    for part in parts:
        if not (corpus_dir / part).is_dir():
            raise UserError(f"{corpus_dir / part}: no such folder; {CORPORA[name].get}")
    return prepare_librispeech(corpus_dir, dataset_parts=parts, num_jobs=nj)


def _lines(path: Path, separator: str, found: Listed) -> Iterator[tuple[str, str]]:
    """Yield (utterance, text) of a list's lines.

    Raises:
        UserError: an utterance is there twice, or in another list that was found before.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        utt, _, text = line.strip().partition(separator)
        if utt in found:
            raise UserError(f"{path}:{number}: {utt} is there twice")
        if utt:
            yield utt, text


def _librispeech_listed(corpus_dir: Path, part: str) -> Listed:
    found: Listed = {}
    for path in sorted((corpus_dir / part).rglob("*.trans.txt")):
        for utt, text in _lines(path, " ", found):
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
    found: Listed = {}
    path = corpus_dir / "data_aishell/transcript/aishell_transcript_v0.8.txt"
    for utt, text in _lines(path, " ", found):
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
    """Return the manifests of GigaSpeech.json without the package that lhotse's own way needs.

    Its file has some gigabytes: it is read piece by piece, anew for each of the manifests.
    """
    from lhotse.recipes.gigaspeech import parse_utterance

    path = corpus_dir / "GigaSpeech.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; {CORPORA['gigaspeech'].get}")

    def recordings(part: str) -> Iterator[Any]:
        for audio in json_items(path, "audios"):
            if f"{{{part}}}" in audio["subsets"]:
                yield parse_utterance(audio | {"segments": []}, corpus_dir)[0]

    def supervisions(part: str) -> Iterator[Any]:
        for audio in json_items(path, "audios"):
            segments = [each for each in audio["segments"] if f"{{{part}}}" in each["subsets"]]
            for each in parse_utterance(audio | {"segments": segments}, corpus_dir)[1]:
                # What one audio says is by whoever speaks in it; names are not known.
                each.speaker = None if each.speaker == "N/A" else each.speaker
                yield each

    return {
        part: {"recordings": recordings(part), "supervisions": supervisions(part)} for part in parts
    }


def _gigaspeech_text(text: str) -> str | None:
    """Leave out punctuation marks; what holds <SIL>, <NOISE>, <MUSIC> or <OTHER> is no speech."""
    if re.search("<(SIL|NOISE|MUSIC|OTHER)>", text):
        return None
    return re.sub("<(COMMA|PERIOD|QUESTIONMARK|EXCLAMATIONPOINT)>", " ", text)


def _spgispeech_listed(corpus_dir: Path, part: str) -> Listed:
    """Return the slices of a part: the folder's name, a hash, is all that is known of the call."""
    audio = corpus_dir if (corpus_dir / part).is_dir() else corpus_dir / "spgispeech"
    found = {}
    for where, row in _rows("spgispeech", corpus_dir / f"{part}.csv", delimiter="|"):
        name = row["wav_filename"]
        # 07a785e9/12.wav is the twelfth slice of a call.
        utt = name.replace("/", "_").removesuffix(".wav")
        _add(found, where, utt, audio / part, name, name.partition("/")[0], row["transcript"])
    return found


def _spgispeech_text(text: str) -> str:
    """Leave out case and punctuation but the apostrophe."""
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
    found: Listed = {}
    for utt, text in _lines(folder / split / "transcripts.txt", "\t", found):
        # 10_20_000000: speaker 10 reads book 20.
        speaker, _, rest = utt.partition("_")
        book = rest.partition("_")[0]
        found[utt] = (folder / split / f"audio/{speaker}/{book}/{utt}.{suffix}", speaker, text)
    return found


def _commonvoice_listed(corpus_dir: Path, part: str) -> Listed:
    language, _, split = part.rpartition("-")
    home, found = corpus_dir / language, Listed()
    for where, row in _rows("commonvoice", home / f"{split}.tsv"):
        name = row["path"]
        # Older releases leave the suffix out.
        name = name if Path(name).suffix or not name else f"{name}.mp3"
        _add(found, where, Path(name).stem, home / "clips", name, row["client_id"], row["sentence"])
    return found


def _fleurs_listed(corpus_dir: Path, part: str) -> Listed:
    """Return the recordings of a split: nothing is known of speakers, so each has its own."""
    language, _, split = part.rpartition("-")
    home, found = corpus_dir / language, Listed()
    for where, row in _rows("fleurs", home / f"{split}.tsv", header=_FLEURS_HEADER):
        name = row["file_name"]
        if not name.endswith(".wav"):
            # A sentence with a line break in it cuts its row in two; the first half stays.
            logging.warning(f"{where}: a row without an audio file, which is left out")
            continue
        utt = Path(name).stem
        _add(found, where, utt, home / "audio" / split, name, utt, row["transcription"])
    return found


def _voxpopuli_listed(corpus_dir: Path, part: str) -> Listed:
    language, _, split = part.rpartition("-")
    home, found = corpus_dir / "transcribed_data" / language, Listed()
    for where, row in _rows("voxpopuli", home / f"asr_{split}.tsv"):
        utt, speaker = row["id"], row["speaker_id"]
        # Ids begin with the day; some speakers are unknown.
        speaker = utt if speaker in ("", "None") else speaker
        _add(found, where, utt, home / utt[:4], f"{utt}.ogg", speaker, row["normalized_text"])
    return found


def _rows(
    corpus: str, path: Path, delimiter: str = "\t", header: Sequence[str] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (file:line, row) of a list, in which quotes stand as they are."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; {CORPORA[corpus].get}")
    with open(path, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, header, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        lacking = _COLUMNS[corpus] - set(rows.fieldnames or ())
        if lacking:
            raise UserError(f"{path}:1: no column {', '.join(sorted(lacking))}")
        for row in rows:
            yield f"{path}:{rows.line_num}", {key: value or "" for key, value in row.items()}


def _add(
    found: Listed, where: str, utt: str, folder: Path, name: str, speaker: str, text: str
) -> None:
    """Add an utterance with its file in a folder; a row that is there twice counts once."""
    if not utt or not speaker or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{where}: no clip or no speaker: {name!r}")
    value = (folder / name, speaker, text)
    if found.setdefault(utt, value) != value:
        raise UserError(f"{where}: {utt} is there twice, and the rows differ")


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
_SPLITS = ("train", "dev", "test")
# Utterances and hours of train, dev and test:
# https://huggingface.co/datasets/facebook/multilingual_librispeech, and the corpus's README.
_MLS_SIZES: dict[str, tuple[tuple[int | None, float], ...]] = {
    "english": ((None, 44659.74), (None, 15.75), (None, 15.55)),
    "german": ((469942, 1966.51), (3469, 14.28), (3394, 14.29)),
    "dutch": ((374287, 1554.24), (3095, 12.76), (3075, 12.76)),
    "french": ((258213, 1076.58), (2416, 10.07), (2426, 10.07)),
    "spanish": ((220701, 917.68), (2408, 9.99), (2385, 10)),
    "italian": ((59623, 247.38), (1248, 5.18), (1262, 5.27)),
    "portuguese": ((37533, 160.96), (826, 3.64), (871, 3.74)),
    "polish": ((25043, 103.65), (512, 2.08), (520, 2.14)),
}
_MLS_PARTS = {
    f"{name}-{split}": size
    for name, sizes in _MLS_SIZES.items()
    for split, size in zip(_SPLITS, sizes, strict=True)
}
_MINI = "mini_librispeech"
_FLEURS = (
    "af_za am_et ar_eg as_in ast_es az_az be_by bg_bg bn_in bs_ba ca_es ceb_ph ckb_iq cmn_hans_cn "
    "cs_cz cy_gb da_dk de_de el_gr en_us es_419 et_ee fa_ir ff_sn fi_fi fil_ph fr_fr ga_ie gl_es "
    "gu_in ha_ng he_il hi_in hr_hr hu_hu hy_am id_id ig_ng is_is it_it ja_jp jv_id ka_ge kam_ke "
    "kea_cv kk_kz km_kh kn_in ko_kr ky_kg lb_lu lg_ug ln_cd lo_la lt_lt luo_ke lv_lv mi_nz mk_mk "
    "ml_in mn_mn mr_in ms_my mt_mt my_mm nb_no ne_np nl_nl nso_za ny_mw oc_fr om_et or_in pa_in "
    "pl_pl ps_af pt_br ro_ro ru_ru sd_in sk_sk sl_si sn_zw so_so sr_rs sv_se sw_ke ta_in te_in "
    "tg_tj th_th tr_tr uk_ua umb_ao ur_pk uz_uz vi_vn wo_sn xh_za yo_ng yue_hant_hk zu_za"
).split()
_FLEURS_HEADER = ("id file_name raw_transcription transcription chars num_samples gender").split()
_VOXPOPULI = "cs de en es et fi fr hr hu it lt nl pl ro sk sl".split()
# What a list must have.
_COLUMNS = {
    "commonvoice": {"client_id", "path", "sentence"},
    "fleurs": {"file_name", "transcription"},
    "spgispeech": {"wav_filename", "transcript"},
    "voxpopuli": {"id", "normalized_text", "speaker_id"},
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
        # Panayotov et al., Librispeech: an ASR corpus based on public domain audio books, table 1.
        hours={
            "train-clean-100": 100.6,
            "train-clean-360": 363.6,
            "train-other-500": 496.7,
            "dev-clean": 5.4,
            "dev-other": 5.3,
            "test-clean": 5.4,
            "test-other": 5.1,
        },
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
        # https://www.openslr.org/51 for the training; the other sets are those of release 2.
        hours={"train": 452, "dev": 1.6, "test": 2.62},
    ),
    "gigaspeech": Corpus(
        # With what is no speech, as huggingface.co/datasets/speechcolab/gigaspeech counts.
        {"XS": None, "S": None, "M": None, "L": None, "XL": None, "DEV": 6750, "TEST": 25619},
        _gigaspeech,
        "GigaSpeech.json and audio/",
        "https://github.com/SpeechColab/GigaSpeech tells how to get it",
        text=_gigaspeech_text,
        # README.md of https://github.com/SpeechColab/GigaSpeech.
        hours={"XS": 10, "S": 250, "M": 1000, "L": 2500, "XL": 10000, "DEV": 12, "TEST": 40},
    ),
    "spgispeech": Corpus(
        {"train": None, "val": 39341},
        None,
        "train.csv, val.csv and spgispeech/{train,val}",
        "https://datasets.kensho.com/datasets/spgispeech tells how to get it",
        _spgispeech_listed,
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
        {f"*-{split}": None for split in (*_SPLITS, "validated", "invalidated", "other")},
        None,
        "a folder a language (cy, de, zh-CN, ...) with train.tsv, dev.tsv, test.tsv and clips/",
        "https://commonvoice.mozilla.org/datasets has it, an archive a language",
        _commonvoice_listed,
        languages={},
    ),
    "fleurs": Corpus(
        {f"{code}-{split}": None for code in _FLEURS for split in _SPLITS} | {"en_us-test": 647},
        None,
        "a folder a language (en_us, cmn_hans_cn, ...) with train.tsv, dev.tsv, test.tsv and "
        "audio/{train,dev,test}/*.wav",
        "egs/fleurs/asr1/local/download.py downloads it",
        _fleurs_listed,
        languages={},
    ),
    "voxpopuli": Corpus(
        {f"{code}-{split}": None for code in _VOXPOPULI for split in _SPLITS}
        | {"en_accented-test": None},
        None,
        "transcribed_data/ with a folder a language (en, de, ...), in it asr_train.tsv, "
        "asr_dev.tsv, asr_test.tsv and a folder a year",
        "https://github.com/facebookresearch/voxpopuli tells how to get it",
        _voxpopuli_listed,
        languages={"en_accented": "en"},
    ),
    "mls": Corpus(
        {part: count for part, (count, _) in _MLS_PARTS.items()},
        _mls,
        "mls_german, mls_french and the like (or mls_german_opus ...)",
        "https://www.openslr.org/94 has it",
        _mls_listed,
        languages=_MLS,
        hours={part: hours for part, (_, hours) in _MLS_PARTS.items()},
    ),
}
