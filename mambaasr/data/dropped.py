"""Reports of dropped utterances (report.tsv): which ones, from which file and line, and why.

Each report begins with the rows of the input folder's, so that the last folder's names every
utterance that is missing there.
"""

from collections.abc import Collection, Iterable
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


def write_report(folder: str | Path, rows: Iterable[Dropped]) -> None:
    """Write ``folder/report.tsv``, without rows too: an empty report means nothing was dropped."""
    with atomic_write(Path(folder) / NAME) as stream:
        for row in (HEADER, *rows):
            cells = ("-" if cell is None else " ".join(str(cell).split()) for cell in row)
            stream.write("\t".join(cells) + "\n")


def carry_rows(
    source: str | Path, rows: Collection[Dropped], kept: Iterable[str] = ()
) -> list[Dropped]:
    """Return the rows of ``source/report.tsv``, if there is one, followed by new ones.

    Args:
        source: the input folder.
        rows: what is dropped now.
        kept: utterances that are there again, because the data was mended after the report; an
            old row of one of them, or of one in ``rows``, is left out.
    """
    known = {row.utt for row in rows if row.utt is not None}.union(kept)
    return [*(row for row in read_report(source) if row.utt not in known), *rows]


def read_report(folder: str | Path) -> list[Dropped]:
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
