"""Kaldi's ``key value`` files: read with line numbers, written sorted and whole."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# Tabs are common in transcripts and harmless; the others break lines or terminals.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")
_OTHER_SPACES = re.compile(r"[^\S ]")


class Problem(NamedTuple):
    """Something wrong in a data folder.

    Attributes:
        where: ``file:line``, or the file.
        reason: what is wrong.
        remedy: what the user can do about it.
        key: id of the utterance that cannot be used, or None where only the line is concerned.
    """

    where: str
    reason: str
    remedy: str
    key: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}; {self.remedy}"


class Table(dict[str, Any]):
    """The entries of one file, by id, and the lines they came from.

    Attributes:
        path: the file.
        lines: line number (from 1) of each id.
        dead: ids that stand in the file on lines that could not be used.
    """

    def __init__(
        self, path: Path | None = None, entries: Mapping[str, Any] | Iterable[tuple[str, Any]] = ()
    ) -> None:
        super().__init__(entries)
        self.path = path
        self.lines: dict[str, int] = {}
        self.dead: set[str] = set()

    def where(self, key: str) -> str:
        """Return ``file:line`` of an id, or the file where the line is not known."""
        line = self.lines.get(key)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def select(self, keys: Iterable[str]) -> "Table":
        """Return the entries of some ids, with their line numbers."""
        table = Table(self.path, {key: self[key] for key in keys if key in self})
        table.lines = {key: self.lines[key] for key in table if key in self.lines}
        return table


def bad_id(key: str) -> str | None:
    """Return what makes an id unusable, or None.

    Kaldi's files separate ids by spaces and everything else by lines, so an id holds neither.
    """
    if not key:
        return "the id is missing"
    if any(c.isspace() for c in key):
        return f"the id {key!r} holds white space"
    if not key.isprintable():
        return f"the id {key!r} holds a control or invisible character"
    return None


def parse_text(value: str) -> str:
    """Return a transcript; it may be empty.

    Of white space only spaces are left: scoring takes a tab or an ideographic space for one,
    tokens would not.
    """
    if _CONTROL.search(value):
        raise ValueError("the text holds a control character", "remove it")
    return _OTHER_SPACES.sub(" ", value).strip(" ")


def parse_hypothesis(value: str) -> str:
    """Return a hypothesis, which counts whatever a model says: no control character is refused.

    Byte fallback spells any of them; each becomes U+FFFD, which no reference holds.
    """
    return _CONTROL.sub("\ufffd", value)


def parse_path(value: str) -> str:
    """Return the path of an audio file; commands are refused, never run."""
    if not value:
        raise ValueError("no audio file is named", "write 'id path'")
    if value.endswith("|"):
        raise ValueError(
            "a pipe, and commands in data files are not run",
            "write its output into a file and name that file here",
        )
    if _CONTROL.search(value):
        raise ValueError("the path holds a control character", "rename the file")
    return value


def parse_name(value: str) -> str:
    """Return a single word: a speaker or a language."""
    if not value:
        raise ValueError("the second column is missing", "write 'id name'")
    reason = bad_id(value)
    if reason:
        raise ValueError(
            f"more than two columns, or {reason.replace('the id', 'the name')}",
            "ids and names may not hold spaces: replace them by '_'",
        )
    return value


def parse_count(value: str) -> int:
    """Return a whole number >= 0."""
    if not value.isascii() or not value.isdigit():
        raise ValueError(f"{value!r} is not a whole number", "write 'id number'")
    return int(value)


def read_table(
    path: str | Path, parse: Callable[[str], Any], problems: list[Problem], keyed: bool = True
) -> Table:
    """Read a file of ``id value`` lines; what is wrong is collected, not raised.

    Lines end with LF or CRLF; a byte order mark is ignored. An id that stands on several lines
    is unusable, unless the lines say the same.

    Args:
        path: the file, UTF-8.
        parse: turns the rest of a line (str) into a value, or raises
            ``ValueError(reason, remedy)``.
        problems: list that gets a :class:`Problem` for each bad line.
        keyed: whether the ids are utterances' (only these make a problem's ``key``).

    Returns:
        A :class:`Table` of the good lines.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    table = Table(path)

    def report(number: int, reason: str, remedy: str, key: str | None = None) -> None:
        problems.append(Problem(f"{path}:{number}", reason, remedy, key if keyed else None))
        if key is not None:
            table.dead.add(key)

    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        raw_key = re.split(rb"[ \t\r]", line, maxsplit=1)[0]
        try:
            key = raw_key.decode("utf-8")
        except UnicodeDecodeError:
            report(number, "the id is not UTF-8", "convert the file to UTF-8")
            continue
        reason = bad_id(key)
        if reason:
            report(number, reason, "write 'id value', the id without spaces")
            continue
        try:
            value = parse(line[len(raw_key) :].decode("utf-8").strip(" \t\r"))
        except UnicodeDecodeError:
            table.pop(key, None)
            report(number, f"the line of {key!r} is not UTF-8", "convert the file to UTF-8", key)
            continue
        except ValueError as error:
            table.pop(key, None)
            reason, remedy = error.args
            report(number, f"{key}: {reason}", remedy, key)
            continue
        if key in table.lines:
            same = table.get(key) == value
            if not same:
                table.pop(key, None)
            first = table.lines[key]
            report_key = None if same else key
            again = "the same line" if same else "and they differ"
            report(
                number,
                f"duplicate id {key!r}, first in line {first} ({again})",
                "keep one of the lines",
                report_key,
            )
            continue
        if key not in table.dead:
            table[key] = value
        table.lines[key] = number
    return table


def read_good_table(path: str | Path, parse: Callable[[str], Any]) -> Table:
    """Read a file of ``id value`` lines that must be right; see :func:`read_table`.

    Raises:
        UserError: the file cannot be read, or the first problem in it.
    """
    problems: list[Problem] = []
    table = read_table(path, parse, problems)
    if problems:
        raise UserError(str(problems[0]))
    return table


def write_table(path: str | Path, entries: Mapping[str, Any]) -> None:
    """Write ``id value`` lines, sorted by id as in the C locale, UTF-8, LF, whole or not at all.

    Raises:
        UserError: an id or a value cannot stand in such a file, or the disk is full.
    """
    for key, value in entries.items():
        reason = bad_id(key)
        value = str(value)
        try:
            f"{key} {value}".encode()
        except UnicodeEncodeError:
            reason = f"{key!r} {value!r} is not UTF-8"
        if reason is None and (_CONTROL.search(value) or value != value.strip(" \t")):
            reason = (
                f"{key}: {value!r} holds a control character or begins or ends with white space"
            )
        if reason:
            raise UserError(f"{path}: cannot be written: {reason}; rename it")
    # Code points sort as UTF-8 bytes do.
    with atomic_write(path) as stream:
        for key in sorted(entries):
            stream.write(f"{key} {entries[key]}".rstrip(" ") + "\n")
