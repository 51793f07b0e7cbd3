"""Join texts to train a language model on."""

import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mambaasr.data.dropped import Dropped, write_report
from mambaasr.data.kaldi_file import bad_id, parse_text
from mambaasr.errors import UserError
from mambaasr.files import atomic_write


def join_texts(
    paths: Sequence[str | Path], out: str | Path, leave_out: Sequence[str] = ()
) -> tuple[int, int]:
    """Write one file of all texts, in their order, line by line: they may be many gigabytes.

    What cannot be used is left out: lines without an id or a text, not in UTF-8, or with an id
    that occurred before. ``report.tsv`` in ``<out>.report`` names each with file, line and reason.

    Args:
        paths: files of ``id text`` lines.
        out: the file to write.
        leave_out: beginnings of ids whose texts are not wanted, and not reported either.

    Returns:
        tuple: the number of texts written, and that of lines left out.

    Raises:
        UserError: a file cannot be read, has no ids, or no text is left.
    """
    out, dropped = Path(out), list[Dropped]()
    seen: dict[str, int] = {}  # id -> number of its file
    with atomic_write(out) as stream:
        for index, path in enumerate(paths):
            used = repeated = 0
            for number, line in enumerate(read_lines(path), 1):
                key, text, reason = parse_line(line, seen)
                if reason:
                    dropped.append(Dropped(key, f"{path}:{number}", reason))
                    repeated += seen.get(key or "") == index
                elif key is not None and not key.startswith(tuple(leave_out)):
                    seen[key] = index
                    used += 1
                    stream.write(f"{key} {text}\n")
            if repeated > max(2, used / 10):
                raise UserError(
                    f"{path}: {repeated} of {used + repeated} lines begin with an id that occurred "
                    "before; a line is `id text`. To number plain text: "
                    f"awk '{{print \"line-\" NR, $0}}' {shlex.quote(str(path))}"
                )
        if not seen:
            first = (
                f"; the first reason: {dropped[0].where}: {dropped[0].reason}" if dropped else ""
            )
            raise UserError(f"{', '.join(map(str, paths))}: no text to train on{first}")
    write_report(out.with_name(f"{out.name}.report"), dropped)
    return len(seen), len(dropped)


def read_lines(path: str | Path) -> Iterator[bytes]:
    """Yield the lines of a file, without a byte order mark.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream):
                yield line if number else line.removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error


def parse_line(
    line: bytes, seen: Collection[str] = ()
) -> tuple[str | None, str | None, str | None]:
    """Return (id, text, None), or (id or None, None, reason); all None for an empty line.

    Args:
        line: ``id text``.
        seen: ids that are taken.
    """
    try:
        words = line.decode("utf-8").rstrip("\r\n").split(maxsplit=1)
    except UnicodeDecodeError:
        return None, None, "the line is not UTF-8"
    if not words:
        return None, None, None
    key, text = words[0], words[1].strip() if len(words) > 1 else ""
    reason = bad_id(key)
    if reason:
        return None, None, reason
    if not text:
        return key, None, "there is no text"
    if key in seen:
        return key, None, "the id occurred before"
    try:
        return key, parse_text(text), None
    except ValueError as error:
        return key, None, error.args[0]
