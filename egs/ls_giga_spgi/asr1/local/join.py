"""Join the three corpora's training sets, and write every transcript in capitals."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main

SETS = {
    "train": ("train_ls", "train_giga", "train_spgi"),
    "dev": ("dev_ls",),
    "test_clean": ("test_clean_ls",),
    "test_other": ("test_other_ls",),
    "gigaspeech": ("test_giga",),
    "spgispeech": ("test_spgi",),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write data/{train,dev,test_clean,test_other,gigaspeech,spgispeech}."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--nj", help="of the driver; not used")
    args = parser.parse_args(argv)
    from mambaasr.data.corpora import joined
    from mambaasr.data.folder import DataFolder

    for name, parts in SETS.items():
        folder = joined([DataFolder.read(args.data_dir / part) for part in parts])
        folder.text = {utt: text.upper() for utt, text in folder.text.items()}
        folder.write(args.data_dir / name)
    return 0


if __name__ == "__main__":
    run_main(main)
