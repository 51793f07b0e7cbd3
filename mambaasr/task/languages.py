"""The languages of utterances as training data of ``model: multilingual``."""

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mambaasr.data.kaldi_file import Table, parse_name, read_good_table
from mambaasr.data.splits import files_of
from mambaasr.errors import UserError

NAME = "lang"
MODEL = "multilingual"
_OPTIONS = ("languages", "conditioning", "families", "lid_weight")
_DATA = ("train_data_path_and_name_and_type", "valid_data_path_and_name_and_type")


def needed(model_conf: Mapping[str, Any]) -> bool:
    """Say whether a multilingual model's options ask for the languages of the data."""
    return model_conf.get("conditioning", "none") != "none" or bool(model_conf.get("lid_weight"))


def prepare(args: argparse.Namespace) -> None:
    """Check the languages of the training data, and name them in the model's options.

    Statistics do not depend on languages: for them the model becomes ESPnet's own. So does a
    model that is neither given the language nor finds it.

    Args:
        args: the task's options; ``model_conf`` gets ``languages``, sorted, where it has none.

    Raises:
        UserError: names the file, and the utterance whose language is missing or unknown.
    """
    if args.model != MODEL:
        for _, path, _ in _tables(args):
            raise UserError(f"{path}: only `model: {MODEL}` takes data named {NAME}")
        return
    conf = args.model_conf
    if args.collect_stats:
        args.model = "espnet"
        args.model_conf = {key: value for key, value in conf.items() if key not in _OPTIONS}
    if args.collect_stats or not needed(conf):
        for option, _, _ in _tables(args):
            setattr(args, option, [each for each in getattr(args, option) if each[1] != NAME])
        return
    tables = {option: (path, kind) for option, path, kind in _tables(args)}
    for option in _DATA:
        if option not in tables:
            raise UserError(
                f"the model needs languages: give --{option} FOLDER/utt2lang,{NAME},text"
            )
        path, kind = tables[option]
        if kind != "text":
            raise UserError(f"--{option} {path},{NAME},{kind}: write {path},{NAME},text")
        found = read(path)
        if option.startswith("train") and not conf.get("languages"):
            conf["languages"] = sorted(set(found.values()))
        check(found, _ids(getattr(args, option)), path, conf["languages"])


def read(path: str | Path) -> Table:
    """Return utterance -> language of an utt2lang.

    Raises:
        UserError: a line is bad, or there is none.
    """
    table = Table(Path(path))
    for file in files_of(path):
        part = read_good_table(file, parse_name)
        table.update(part)
        table.lines |= part.lines
    if not table:
        raise UserError(f"{path}: the file is empty; write 'id language' lines")
    return table


def check(
    table: Table, ids: Iterable[str], path: str | Path, languages: Sequence[str] | None = None
) -> None:
    """Refuse utterances without a language, or in one that the model does not know.

    Args:
        table: utterance -> language, as :func:`read` gives it.
        ids: the utterances that need one.
        path: of the table, for the message.
        languages: those that the model knows; None: any.

    Raises:
        UserError: names the first utterance.
    """
    for utt in ids:
        if utt not in table:
            raise UserError(f"{path}: utterance {utt!r} has no language there")
        if languages is not None and table[utt] not in languages:
            raise UserError(
                f"{table.where(utt)}: utterance {utt!r} is in {table[utt]!r}, which is none of the "
                f"model's languages: {', '.join(map(str, languages))}"
            )


class LanguagePreprocessor:
    """Turn an utterance's language into its index, and leave the rest to ESPnet.

    ESPnet's own preprocessor leaves names that it does not know as text, which no batch takes.

    Args:
        inner: ESPnet's preprocessor, or None.
        languages: the model's.
    """

    def __init__(self, inner: Callable | None, languages: Iterable[str]) -> None:
        self.inner = inner
        self.languages = list(languages)

    def __call__(self, uid: str, data: dict[str, Any]) -> dict[str, Any]:
        """Return the data with ``lang`` as an array of one index."""
        code = data.pop(NAME)
        data = self.inner(uid, data) if self.inner is not None else data
        return data | {NAME: np.array([self.languages.index(code)])}


def _tables(args):
    """Return (option, path, type) of the data named lang."""
    return [
        (option, path, kind)
        for option in _DATA
        for path, name, kind in getattr(args, option)
        if name == NAME
    ]


def _ids(data):
    """Return the ids that ESPnet may take: those of the first file."""
    found = []
    for file in files_of(data[0][0]):
        with open(file, encoding="utf-8", errors="replace") as stream:
            found += [line.split(maxsplit=1)[0] for line in stream if line.strip()]
    return found
