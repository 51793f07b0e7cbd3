"""report.tsv: which utterances a step dropped, where they stood, and why."""

from pathlib import Path
from typing import NamedTuple

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

NAME = "report.tsv"
HEADER = ("utt", "where", "reason")


class Dropped(NamedTuple):
    """One row: the utterance (or None for a line that names none), ``file:line``, the reason."""

    utt: str | None
    where: str
    reason: str


def write_report(folder, rows):
    """Write ``folder/report.tsv``; it is written with no rows too, so that none means none."""
    with atomic_write(Path(folder) / NAME) as stream:
        for row in (HEADER, *rows):
            cells = ("-" if cell is None else " ".join(str(cell).split()) for cell in row)
            stream.write("\t".join(cells) + "\n")


def read_report(folder):
    """Return the rows of ``folder/report.tsv``, none if there is no such file.

    Raises:
        UserError: the file is there but is no report.
    """
    path = Path(folder) / NAME
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        rows = [tuple(line.split("\t")) for line in lines if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not rows or rows[0] != HEADER or any(len(row) != len(HEADER) for row in rows):
        raise UserError(f"{path}: not a report of dropped utterances; remove it")
    return [Dropped(None if utt == "-" else utt, *rest) for utt, *rest in rows[1:]]
