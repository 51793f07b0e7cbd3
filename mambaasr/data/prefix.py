"""Task tokens: symbols that stand before a transcript in training: ``<|en|> <|transcribe|>``.

The model learns to begin with them; decoding makes it read them (``--prompt``). They are no speech,
so they must be among the non-linguistic symbols (``nlsyms_txt``), which scoring leaves out.
``{lang}`` in a prefix stands for an utterance's language in ``utt2lang``.
"""

import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from mambaasr.errors import UserError

if TYPE_CHECKING:
    from mambaasr.data.folder import DataFolder

LANG = "{lang}"


def make_prefixes(prefix: str, folder: "DataFolder", symbols: Collection[str]) -> dict[str, str]:
    """Return the prefix of each utterance.

    Args:
        prefix: words, such as ``<|{lang}|> <|transcribe|>``.
        folder: a :class:`mambaasr.data.folder.DataFolder`.
        symbols: the non-linguistic symbols.

    Returns:
        Utterance -> text.

    Raises:
        UserError: a word is not among the symbols, or the folder does not know the languages.
    """
    if re.search(r"[{}]", prefix.replace(LANG, "")):
        raise UserError(f"--text_prefix '{prefix}': {LANG} is all that may stand in braces")
    if LANG in prefix and folder.utt2lang is None:
        raise UserError(
            f"--text_prefix '{prefix}': {folder.path} has no utt2lang to take {LANG} from; "
            "write 'utterance language' lines"
        )
    found = {}
    for utt in folder.utterances:
        language = folder.utt2lang[utt] if LANG in prefix else ""
        words = prefix.replace(LANG, language).split()
        for word in words:
            if word not in symbols:
                raise UserError(
                    f"--text_prefix '{prefix}': {utt} gets {word}, which is not among the symbols "
                    "of --nlsyms_txt: it would be split, and scored; add it there"
                )
        found[utt] = " ".join(words)
    return found


def is_of_prefix(symbol: str, prefix: str) -> bool:
    """Return whether a symbol may stand in a prefix, whatever the language."""
    return any(
        re.fullmatch(r"\S+".join(map(re.escape, word.split(LANG))), symbol)
        for word in prefix.split()
    )
