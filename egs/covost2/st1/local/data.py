"""Prepare a pair of CoVoST 2: ``text`` is the translation, ``text.fr`` what is said.

The translations name clips of Common Voice 4; its validated.tsv says who speaks, and what.
"""

import argparse
import csv
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from mambaasr.command import run_main, show_warnings

# The split of Common Voice's validated clips; those of train_covost are only in CoVoST's own.
SPLITS = {"train": "train", "train_covost": "train", "dev": "dev", "test": "test"}
COLUMNS = {"path", "translation", "split"}


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="holds fr/validated.tsv, ...")
    parser.add_argument(
        "--pair", default="fr_en", help="languages of speech and text (%(default)s)"
    )
    parser.add_argument("--text_rules", type=Path, help="how transcripts are written; not texts")
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="output (%(default)s)")
    parser.add_argument("--nj", help="of the driver; not used")
    return parser


def translations(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (utterance, translation, set).

    Raises:
        UserError: there is no such file, or it has no such columns.
    """
    from mambaasr.errors import UserError

    if not path.is_file():
        raise UserError(
            f"{path}: no such file: https://github.com/facebookresearch/covost links to it, as "
            f"{path.name}.tar.gz; COVOST2=FOLDER ./run.sh names the folder that holds all this"
        )
    with open(path, encoding="utf-8", newline="") as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\")
        lacking = COLUMNS - set(rows.fieldnames or ())
        if lacking:
            raise UserError(f"{path}:1: no column {', '.join(sorted(lacking))}")
        for row in rows:
            if row["split"] in SPLITS:
                yield Path(row["path"]).stem, row["translation"] or "", SPLITS[row["split"]]


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data folders."""
    args = get_parser().parse_args(argv)
    show_warnings()
    from mambaasr.data.folder import DataFolder
    from mambaasr.data.kaldi_file import write_table
    from mambaasr.data.known_corpora import CORPORA
    from mambaasr.data.text_rules import TextRules, read_rules, rules_of
    from mambaasr.errors import UserError

    language, _, target = args.pair.partition("_")
    if not language or not target:
        raise UserError(
            f"--pair {args.pair}: write the languages of speech and text, such as fr_en"
        )
    rules = TextRules()
    if args.text_rules is not None:
        rules = rules_of(read_rules(args.text_rules), language)
    if not args.corpus.is_dir():
        raise UserError(
            f"{args.corpus}: no such folder: COVOST2=FOLDER ./run.sh names the one that holds "
            f"{language}/validated.tsv, clips and the translations"
        )
    listed = CORPORA["commonvoice"].listed
    assert listed is not None
    path = args.corpus / language / f"covost_v2.{args.pair}.tsv"
    rows = list(translations(path))
    clips = listed(args.corpus, f"{language}-validated")
    folders = {name: DataFolder() for name in SPLITS.values()}
    spoken: dict[str, dict[str, str]] = {name: {} for name in folders}
    lost = 0
    for utt, translation, name in rows:
        if utt not in clips:
            lost += 1
            continue
        clip, speaker, transcript = clips[utt]
        folder = folders[name]
        folder.wav[utt], folder.utt2spk[utt] = str(clip), speaker
        folder.text[utt] = " ".join(translation.split())
        spoken[name][utt] = rules.apply(transcript)
    if lost:
        logging.warning(
            f"{path}: {lost} of {len(rows)} clips are not in validated.tsv, as happens with "
            "another release of Common Voice than 4"
        )
    for name, folder in folders.items():
        if not folder.text:
            raise UserError(f"{path}: it has no clip of {name} that is in validated.tsv")
        folder.write(args.data_dir / name)
        write_table(args.data_dir / name / f"text.{language}", spoken[name])
        print(f"{args.data_dir / name}: {len(folder.utterances)} utterances")
    return 0


if __name__ == "__main__":
    run_main(main)
