"""A training set in parts, so that a training holds the lists of one part at a time.

ESPnet takes a folder ``NAME/split.0``, ``NAME/split.1``, ... with a file ``num_splits`` in place of
each list where ``multiple_iterator`` is true, and trains on one after the other.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from mambaasr.data.kaldi_file import parse_text, read_good_table, write_table
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

NUMBER = "num_splits"


def split_lists(paths: Mapping[str, str], keys: str, count: int, output_dir: str | Path) -> str:
    """Split lists of ``id value`` lines by their ids, one to each part in turn.

    Args:
        paths: name of a folder in ``output_dir`` -> the list.
        keys: file whose first column names the ids; those that no list has are an error, and
            others that a list has are left out.
        count: number of parts.
        output_dir: where to write.

    Returns:
        A one-line summary.

    Raises:
        UserError: a list is bad or lacks an id, or there are fewer ids than parts.
    """
    utts = list(read_good_table(keys, parse_text))
    if not 1 <= count <= len(utts):
        raise UserError(f"{len(utts)} utterances in {count} parts: each needs one")
    for name, path in paths.items():
        table = read_good_table(path, parse_text)
        missing = [utt for utt in utts if utt not in table]
        if missing:
            raise UserError(f"{path}: {missing[0]!r} of {keys} is missing")
        folder = Path(output_dir, name)
        # The last to be written: without it ESPnet takes the folder for none.
        (folder / NUMBER).unlink(missing_ok=True)
        for number in range(count):
            part = {utt: table[utt] for utt in utts[number::count]}
            write_table(folder / f"split.{number}", part)
        with atomic_write(folder / NUMBER) as stream:
            stream.write(f"{count}\n")
    return f"{output_dir}: {len(utts)} utterances in {count} parts"


def files_of(path: str | Path) -> list[str]:
    """Return a list's parts where it is split, else itself."""
    if not os.path.isdir(path):
        return [str(path)]
    try:
        count = int(Path(path, NUMBER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: a folder, and no list that was split in parts") from None
    return [f"{path}/split.{number}" for number in range(count)]
