"""The pages of an Ogg file (RFC 3533): libogg leaves out a damaged one without a word."""

import functools
import mmap
import os
import zlib
from pathlib import Path

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_HEAD, _CHECKSUM = 27, slice(22, 26)
_FIRST, _LAST = 2, 4


def first_fault(path: str | Path) -> str | None:
    """Return what is wrong with the first page that is damaged or missing, or None.

    Streams may follow each other, and something else may follow the last.
    """
    state = os.stat(path)
    return _first_fault(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache  # a recording may have many segments
def _first_fault(path: str | Path, mtime: int, size: int) -> str | None:
    numbers: dict[bytes, int] = {}
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place, last = 0, False
        while place < len(data):
            head = data[place : place + _HEAD]
            if head[:4] != b"OggS" or len(head) < _HEAD:
                return None if last else f"no page at byte {place}"
            sizes = data[place + _HEAD : place + _HEAD + head[26]]
            page = data[place : place + _HEAD + len(sizes) + sum(sizes)]
            if len(sizes) < head[26] or len(page) < _HEAD + len(sizes) + sum(sizes):
                return f"the page at byte {place} is cut off"
            if _checksum(page) != int.from_bytes(page[_CHECKSUM], "little"):
                return f"the page at byte {place} is damaged"
            serial, number = head[14:18], int.from_bytes(head[18:22], "little")
            begins = serial not in numbers or head[5] & _FIRST
            if not begins and number != numbers[serial] + 1:
                return f"a page is missing before byte {place}"
            numbers[serial], last = number, bool(head[5] & _LAST)
            place += len(page)
    return None if last else "the last page is missing"


def _checksum(page: bytes) -> int:
    """Return a page's CRC: zlib's, but for the order of bits, and from zero."""
    bits = (page[:22] + bytes(4) + page[26:]).translate(_REVERSED)
    found = zlib.crc32(bits, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int.from_bytes(found.to_bytes(4, "little").translate(_REVERSED), "big")
