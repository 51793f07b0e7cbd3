"""The AN4 corpus: find it, check it, and write it as data folders."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from mambaasr.data.download import download, unpack
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

# This commit's README is the checked corpus' own; what it unpacks to is compared with CHECKSUMS.
COMMIT = "b567d132f43304e70a2b2eca6077f22255311812"
URL = f"https://github.com/cmusphinx/an4/archive/{COMMIT}.tar.gz"
CHECKSUMS = Path(__file__).with_name("an4.sha256")
DEV_EVERY = 10
# Id, speaker, path of the wav, text.
Utterance = tuple[str, str, Path, str]
HOW_TO = (
    "set AN4 in ../../TEMPLATE/asr1/db.sh or in the environment to the folder with etc/ and wav/ "
    "(a clone of https://github.com/cmusphinx/an4), or to 'downloads' to download it"
)


def find_corpus(name: str, check: bool = True) -> Path:
    """Return the corpus' root: the folder ``name``, or ``downloads/an4``, downloaded if absent.

    Args:
        name: a folder, or ``downloads``.
        check: whether to :func:`verify` a download before it gets its name.

    Raises:
        UserError: the folder is missing or holds no AN4, or the download fails or is wrong.
    """
    root = Path(name)
    if name == "downloads":
        root = root / "an4"
        if not root.exists():
            archive = Path(name) / f"an4-{COMMIT[:8]}.tar.gz"
            download(URL, archive, remedy=HOW_TO)
            try:
                unpack(archive, root, _verify_download if check else None)
            finally:
                # A wrong archive goes too, or the next run would take it again.
                archive.unlink()
    if not root.is_dir():
        raise UserError(f"AN4={name}: no such folder; {HOW_TO}")
    for needed in ("etc/an4_train.fileids", "wav"):
        if not (root / needed).exists():
            raise UserError(f"AN4={name}: {needed} is not there: this is not AN4; {HOW_TO}")
    return root


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or of a folder as ``sha256sum * | sha256sum`` prints it.

    A folder's sum covers the names and contents of the files right below it, in byte order of
    their names (``LC_ALL=C``), so it can be checked by hand.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if not p.name.startswith("."))
        lines = "".join(f"{checksum(p)}  {p.name}\n" for p in files if p.is_file())
        return hashlib.sha256(lines.encode()).hexdigest()
    return hashlib.sha256(path.read_bytes()).hexdigest()


def verify(root: Path, called: str | None = None, remedy: str | None = None) -> None:
    """Compare the corpus with the committed sums: four lists in etc/ and one folder a speaker.

    Args:
        root: the corpus.
        called: what to call it in the error; its path if None.
        remedy: what the user can do, beside skipping the comparison; None is to remove
            the corpus and fetch it again.

    Raises:
        UserError: something is missing or differs; names what.
    """
    wrong = []
    for line in CHECKSUMS.read_text(encoding="utf-8").splitlines():
        expected, name = line.split(maxsplit=1)
        path = root / name
        if not path.exists():
            wrong.append(f"{name} is missing")
        elif checksum(path) != expected:
            wrong.append(f"{name} differs")
    if wrong:
        shown = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise UserError(
            f"{called or root}: not the AN4 that this recipe knows ({CHECKSUMS.name}): {shown}; "
            f"{remedy or 'remove it and fetch it again'}, or skip this check with ./run.sh "
            "--local_data_opts --no-check"
        )


def _verify_download(root: Path) -> None:
    verify(root, URL, "nothing of it was kept: run again to download it once more")


def read_split(root: Path, split: str) -> list[Utterance]:
    """Read one official list, ``train`` or ``test``.

    Returns:
        A list of (utterance id, speaker, path of the wav, text), in the list's order. The id is
        the corpus' own with the speaker in front, as Kaldi sorts.

    Raises:
        UserError: a file is missing, or a line of the two lists cannot be read or does not match.
    """
    ids_path = root / f"etc/an4_{split}.fileids"
    texts_path = root / f"etc/an4_{split}.transcription"
    ids, texts = _lines(ids_path), _lines(texts_path)
    if len(ids) != len(texts):
        raise UserError(f"{ids_path} has {len(ids)} lines, {texts_path} {len(texts)}")
    rows = []
    for number, (file_id, line) in enumerate(zip(ids, texts, strict=True), 1):
        match = re.fullmatch(r"(?:<s>\s+)?(.*?)(?:\s+</s>)?\s+\((\S+)\)\s*", line)
        if not match:
            raise UserError(f"{texts_path}:{number}: 'WORDS (id)' was expected: {line!r}")
        text, name = match.groups()
        parts = file_id.strip().split("/")
        if len(parts) != 3 or parts[2] != name or ".." in parts:
            raise UserError(f"{ids_path}:{number}: {file_id!r} is not the folder/speaker/{name}")
        wav = root / "wav" / f"{file_id.strip()}.wav"
        if not wav.is_file():
            raise UserError(f"{ids_path}:{number}: {wav} is not there")
        rows.append((f"{parts[1]}-{name}", parts[1], wav, text))
    return rows


def dev_speakers(speakers: Iterable[str]) -> set[str]:
    """Choose the development speakers: every tenth person of the training speakers, by name.

    Names that differ in a trailing digit only (mdcs, mdcs2) may be one person: they stay together,
    so that nobody can be on both sides.
    """
    people: dict[str, list[str]] = {}
    for speaker in sorted(speakers):
        people.setdefault(speaker.rstrip("0123456789"), []).append(speaker)
    chosen = sorted(people)[DEV_EVERY - 1 :: DEV_EVERY]
    return {speaker for person in chosen for speaker in people[person]}


def prepare(root: Path, data_dir: str | Path, check: bool = True) -> None:
    """Write data/train_nodev, data/train_dev and data/test.

    Args:
        root: the corpus, see :func:`find_corpus`.
        data_dir: folder of the data folders.
        check: whether to compare the corpus with the committed sums first.
    """
    if check:
        verify(root)
    train, test = read_split(root, "train"), read_split(root, "test")
    held_out = dev_speakers({speaker for _, speaker, _, _ in train})
    sets = {
        "train_nodev": [row for row in train if row[1] not in held_out],
        "train_dev": [row for row in train if row[1] in held_out],
        "test": test,
    }
    for name, rows in sets.items():
        write_folder(Path(data_dir) / name, rows)
        speakers = len({row[1] for row in rows})
        print(f"{data_dir}/{name}: {len(rows)} utterances, {speakers} speakers")


def write_folder(path: Path, rows: Iterable[Utterance]) -> None:
    """Write rows of :func:`read_split` as a data folder."""
    DataFolder(
        wav={utt: wav for utt, _, wav, _ in rows},
        text={utt: text for utt, _, _, text in rows},
        utt2spk={utt: speaker for utt, speaker, _, _ in rows},
        utt2lang={utt: "en" for utt, _, _, _ in rows},
    ).write(path)


def _lines(path: Path) -> list[str]:
    """Return a list's lines; blank ones are dropped.

    Raises:
        UserError: the file is missing or not text.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {HOW_TO}") from error
    return [line for line in lines if line.strip()]
