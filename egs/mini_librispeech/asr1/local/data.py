"""Prepare Mini LibriSpeech: data/train, data/dev and data/test_clean."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mambaasr.command import run_main, show_warnings

# Archive -> what OpenSLR says of it (31 and 12).
OPENSLR = "https://www.openslr.org/resources"
ARCHIVES = {
    "train-clean-5": (f"{OPENSLR}/31", "md5:5df7d4e78065366204ca6845bb08f490"),
    "test-clean": (f"{OPENSLR}/12", "md5:32fa31d27d2e1cad72775fee3f4849a9"),
}
# Three women and three men of train-clean-5, an eighth of its utterances, are the development set.
DEV_SPEAKERS = {"226", "1737", "3664", "5789", "6848", "7312"}
HOW_TO = (
    "set MINI_LIBRISPEECH in ../../TEMPLATE/asr1/db.sh or in the environment to a folder "
    "LibriSpeech with train-clean-5 and test-clean, or to 'downloads' to download them"
)


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus",
        default="downloads",
        help="folder with train-clean-5 and test-clean; 'downloads': fetch them (%(default)s)",
    )
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument("--nj", type=int, default=1, help="parallel jobs (%(default)s)")
    return parser


def fetch(folder: Path) -> Path:
    """Download and unpack what is not there; return the folder LibriSpeech.

    Raises:
        UserError: a download fails, or is not what OpenSLR promises.
    """
    from mambaasr.data.download import download, unpack

    root = folder / "LibriSpeech"
    for part, (address, checksum) in ARCHIVES.items():
        if not (root / part).is_dir():
            archive = folder / f"{part}.tar.gz"
            download(f"{address}/{archive.name}", archive, checksum, HOW_TO)
            unpack(archive, root / part, inner=part)
            archive.unlink()
    return root


def main(argv: Sequence[str] | None = None) -> int:
    """Find or download the corpus and write the data folders."""
    args = get_parser().parse_args(argv)
    show_warnings()
    from mambaasr.data.corpora import prepare_sets
    from mambaasr.data.folder import DataFolder

    root = fetch(Path("downloads")) if args.corpus == "downloads" else Path(args.corpus)
    # All of train-clean-5 is `train` until `dev` is taken out of it.
    sets = {"train": ["train-clean-5"], "test_clean": ["test-clean"]}
    counts = prepare_sets("mini_librispeech", root, sets, args.data_dir, args.nj)
    both = DataFolder.read(args.data_dir / "train")
    dev = [utt for utt in both.utterances if both.utt2spk[utt] in DEV_SPEAKERS]
    train = [utt for utt in both.utterances if both.utt2spk[utt] not in DEV_SPEAKERS]
    both.select(dev).write(args.data_dir / "dev")
    both.select(train).write(args.data_dir / "train")
    counts |= {"train": len(train), "dev": len(dev)}
    for name in ("train", "dev", "test_clean"):
        print(f"{args.data_dir / name}: {counts[name]} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
