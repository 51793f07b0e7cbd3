"""Join the three corpora's training sets, and their development sets."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main

CORPORA = ("mls", "commonvoice", "voxpopuli")


def main(argv: Sequence[str] | None = None) -> int:
    """Write data/train and data/dev."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--nj", help="of the driver; not used")
    args = parser.parse_args(argv)
    from mambaasr.data.corpora import joined, prefixed
    from mambaasr.data.folder import DataFolder

    for name in ("train", "dev"):
        # The corpora number their speakers alike, and nothing keeps utterances' ids apart.
        folder = joined(
            [
                prefixed(DataFolder.read(args.data_dir / f"{name}_{corpus}"), f"{corpus}-")
                for corpus in CORPORA
            ]
        )
        folder.write(args.data_dir / name)
        print(f"{args.data_dir / name}: {len(folder.utterances)} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
