"""Write data/train, data/dev and data/test from a folder of recordings and a file of transcripts.

The corpus is a folder that holds, for example,

    text.txt            one line for each recording: its name without .wav, a space, what is said
    anna/anna_001.wav   one utterance a file, in any folders below

With folders named train, dev and test, each with such a text.txt, these are the sets. Without them
whole speakers are taken for dev and test. Adapt what differs in your corpus: `speaker_of` and
`normalise`.
"""

import argparse
import hashlib
import unicodedata
from pathlib import Path
from typing import NamedTuple

from mambaasr.command import run_main
from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

SETS = ("train", "dev", "test")
AUDIO = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".aac", ".webm")


class Utterance(NamedTuple):
    """One recording; its id begins with the speaker's name, as Kaldi sorts."""

    id: str
    speaker: str
    path: Path
    text: str


def speaker_of(path: Path) -> str:
    """Return who speaks: here the file's name up to the first `_` or `-`."""
    return path.stem.replace("-", "_").partition("_")[0]


def normalise(text: str) -> str:
    """Return a transcript as it should be recognised: here in capitals, without punctuation."""
    text = unicodedata.normalize("NFC", text).replace("’", "'").upper()
    marks = {c for c in text if unicodedata.category(c)[0] in "PS" and c != "'"}
    return " ".join("".join(" " if c in marks else c for c in text).split())


def read(folder: Path) -> list[Utterance]:
    """Return the utterances of a folder, sorted by id.

    Raises:
        UserError: the transcripts are missing or wrong, or name a recording that is not there.
    """
    texts = folder / "text.txt"
    if not texts.is_file():
        raise UserError(f"{texts}: no such file; write 'NAME WORDS' there, a line a recording")
    audio: dict[str, Path] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO):
        if path.stem in audio:
            raise UserError(f"{path} and {audio[path.stem]}: two recordings of one name")
        audio[path.stem] = path
    try:
        lines = texts.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{texts}: not UTF-8 ({error}); convert it") from error
    utterances: dict[str, Utterance] = {}
    seen = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        first, *rest = line.split(maxsplit=1)
        name = Path(first).stem if Path(first).suffix.lower() in AUDIO else first
        if name not in audio or name in seen:
            reason = "stands there twice" if name in seen else "has no recording"
            raise UserError(f"{texts}:{number}: {name!r} {reason}")
        seen.add(name)
        path, speaker = audio[name].absolute(), speaker_of(audio[name])
        utt = name if name.startswith(speaker) else f"{speaker}-{name}"
        if utt in utterances:
            raise UserError(f"{texts}:{number}: {utt!r} is another recording's id too: rename one")
        utterances[utt] = Utterance(utt, speaker, path, normalise("".join(rest)))
    if not utterances:
        raise UserError(f"{texts}: no transcripts")
    if len(audio) > len(seen):
        print(f"{folder}: {len(audio) - len(seen)} recordings have no transcript and are left out")
    return [utterances[utt] for utt in sorted(utterances)]


def split(utterances: list[Utterance], share: float) -> dict[str, list[Utterance]]:
    """Take about ``share`` of the utterances for dev, as many for test: whole speakers.

    A hash of each name decides, so the same corpus is always split alike.
    """
    groups: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        groups.setdefault(utterance.speaker, []).append(utterance)
    if len(groups) < 3:
        print(f"fewer than 3 speakers ({', '.join(groups)}): the sets share them")
        groups = {utterance.id: [utterance] for utterance in utterances}
    if len(groups) < 3:
        raise UserError(f"{len(utterances)} utterances cannot be split into 3 sets")
    names = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    largest = max(names, key=lambda name: len(groups[name]))
    sets: dict[str, list[Utterance]] = {name: [] for name in SETS}
    for name in names:
        # A set that is empty takes a speaker whatever it costs, the training set the largest.
        held_out = [one for one in ("dev", "test") if not sets[one]] or [
            one
            for one in ("dev", "test")
            if len(sets[one]) + len(groups[name]) <= share * len(utterances)
        ]
        sets[held_out[0] if held_out and name != largest else "train"] += groups[name]
    return sets


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument("--share", type=float, default=0.1, help="of dev and of test (%(default)s)")
    parser.add_argument("--nj", type=int, default=1, help="the driver says it; not needed here")
    args = parser.parse_args(argv)
    if not args.corpus.is_dir():
        raise UserError(f"{args.corpus}: no such folder; say CORPUS=/folder ./run.sh")
    if all((args.corpus / name).is_dir() for name in SETS):
        sets = {name: read(args.corpus / name) for name in SETS}
    else:
        sets = split(read(args.corpus), args.share)
    for name, utterances in sets.items():
        DataFolder(
            wav={utterance.id: utterance.path for utterance in utterances},
            text={utterance.id: utterance.text for utterance in utterances},
            utt2spk={utterance.id: utterance.speaker for utterance in utterances},
        ).write(args.data_dir / name)
        speakers = len({utterance.speaker for utterance in utterances})
        print(f"{args.data_dir / name}: {len(utterances)} utterances, {speakers} speakers")
        if 2 < len(utterances) == speakers:
            print("as many speakers as utterances: is that so? see speaker_of in local/data.py")
    return 0


if __name__ == "__main__":
    run_main(main)
