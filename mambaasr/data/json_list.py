"""A list in a JSON file of gigabytes, item by item."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mambaasr.errors import UserError


def json_items(path: Path, key: str, size: int = 1 << 20) -> Iterator[Any]:
    """Yield the items of a list in a JSON file that is too large to be read at once.

    Args:
        path: of the file.
        key: the list's; it is the first of this name in the file.
        size: how many characters are read at a time.

    Raises:
        UserError: the file has no such list, or is no JSON.
    """
    decode, text = json.JSONDecoder().raw_decode, ""
    with open(path, encoding="utf-8") as stream:
        while not (begin := re.search(rf'"{key}"\s*:\s*\[\s*', text)):
            text += (more := stream.read(size))
            if not more:
                raise UserError(f'{path}: it has no list "{key}"')
        text = text[begin.end() :]
        while not text.startswith("]"):
            try:
                item, end = decode(text)
                rest = text[end:].lstrip()
                # -1.5 may be the beginning of -1.5e3.
                complete = rest[:1] in (",", "]")
            except ValueError:
                complete = False
            if complete:
                yield item
                text = rest.removeprefix(",").lstrip()
            if not complete or not text:
                more = stream.read(max(size, len(text)))
                if not more:
                    raise UserError(f'{path}: the list "{key}" breaks off, or is no JSON')
                text = (text + more).lstrip()
