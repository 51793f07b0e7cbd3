"""Prepare SPGISpeech: data/train, data/dev and data/val."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main, show_warnings

# The corpus has a training and a validation set, on which results are published. So every
# five-hundredth utterance of the training set, in whole calls, is the development set: some 4,000,
# as many as ESPnet's recipe takes.
SHARE = 500


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", required=True, help="folder with train.csv and val.csv")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument("--nj", help="of the driver; not used")
    args = parser.parse_args(argv)
    show_warnings()
    from mambaasr.data.corpora import prepare_sets
    from mambaasr.data.folder import DataFolder
    from mambaasr.errors import UserError

    # All of the training set is `train` until `dev` is taken out of it.
    sets = {"train": ["train"], "val": ["val"]}
    counts = prepare_sets("spgispeech", args.corpus, sets, args.data_dir)
    both = DataFolder.read(args.data_dir / "train")
    dev, size = set(), 0
    for call, number in sorted(Counter(both.utt2spk.values()).items()):
        if size * SHARE >= counts["train"]:
            break
        dev.add(call)
        size += number
    if size == counts["train"]:
        raise UserError(
            f"{args.corpus}/train.csv: one call alone cannot be split into train and dev"
        )
    for name, within in (("dev", True), ("train", False)):
        utts = [utt for utt in both.utterances if (both.utt2spk[utt] in dev) == within]
        both.select(utts).write(args.data_dir / name)
        print(f"{args.data_dir / name}: {len(utts)} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
