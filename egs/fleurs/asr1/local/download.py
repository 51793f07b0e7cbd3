"""Download languages of FLEURS; what is there already is not asked for again."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main

# What the repository holds, and the files for which it holds a note with their sum.
NOTES = "https://huggingface.co/datasets/google/fleurs/raw/main/data"
FILES = "https://huggingface.co/datasets/google/fleurs/resolve/main/data"
REMEDY = "run it again: it goes on where it broke off"


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; FLEURS=FOLDER ./run.sh reads it")
    parser.add_argument("--languages", nargs="+", required=True, help="en_us, ..., or all")
    return parser


def fetch(language: str, split: str, folder: Path) -> None:
    """Download a split of a language, and unpack its audio.

    Raises:
        UserError: a download fails, or is not what the repository notes.
    """
    from mambaasr.data.download import download, lfs_checksum, unpack

    home = folder / language
    archive = home / "audio" / f"{split}.tar.gz"
    wanted = [] if (home / "audio" / split).is_dir() else [archive]
    for path in (home / f"{split}.tsv", *wanted):
        if not path.exists():
            name = path.relative_to(folder).as_posix()
            checksum = lfs_checksum(f"{NOTES}/{name}", REMEDY)
            download(f"{FILES}/{name}", path, checksum, REMEDY)
    if wanted:
        unpack(archive, home / "audio" / split)
        archive.unlink()


def main(argv: Sequence[str] | None = None) -> int:
    """Download all splits of all languages."""
    args = get_parser().parse_args(argv)
    from mambaasr.data.known_corpora import CORPORA
    from mambaasr.errors import UserError

    known = dict.fromkeys(part.rpartition("-")[0] for part in CORPORA["fleurs"].parts)
    languages = list(known) if args.languages == ["all"] else args.languages
    for language in languages:
        if language not in known:
            raise UserError(f"--languages {language}: FLEURS has {', '.join(known)}")
    for language in languages:
        for split in ("train", "dev", "test"):
            fetch(language, split, args.folder)
    return 0


if __name__ == "__main__":
    run_main(main)
