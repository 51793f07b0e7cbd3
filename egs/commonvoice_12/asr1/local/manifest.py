"""Write data/{train,dev,test} of a folder with a manifest.jsonl: a row an utterance.

And of each language data/{train,dev}_<language>.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main

KEYS = ("id", "audio", "speaker", "split", "lang", "text")


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument("--text_rules", type=Path, help="how the languages write their transcripts")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Read the manifest and write the data folders."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.corpora import write_set
    from mambaasr.data.folder import DataFolder
    from mambaasr.errors import UserError

    path = args.corpus / "manifest.jsonl"
    folders: dict[str, DataFolder] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            utt, audio, speaker, split, lang, text = (str(row[key]) for key in KEYS)
        except (ValueError, KeyError, TypeError) as error:
            expected = f"a row with {', '.join(KEYS)} was expected"
            raise UserError(f"{path}:{number}: {expected}: {error}") from None
        utt, speaker = f"{lang}-{utt}", f"{lang}-{speaker}"
        for name in (split, f"{split}_{lang}"):
            folder = folders.setdefault(name, DataFolder(utt2lang={}))
            folder.wav[utt] = str(args.corpus / audio)
            folder.text[utt] = " ".join(text.split())
            folder.utt2spk[utt], folder.utt2lang[utt] = speaker, lang
    for name in ("train", "dev", "test"):
        if name not in folders:
            raise UserError(f"{path}: it has no utterance of the split {name}")
    for name, folder in folders.items():
        if not name.startswith("test_"):
            write_set(folder, args.data_dir / name, args.text_rules)
            print(f"{args.data_dir / name}: {len(folder.utterances)} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
