"""How transcripts are written, by language: case, punctuation, apostrophes, spaces.

Letters of every script, their diacritics and digits stay as they are, in Unicode's composed form
(NFC). Invisible characters are left out, and all else is a space, but for what the rules keep.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mambaasr.errors import UserError

CASES = ("lower", "upper", "as_is")
# What stands for an apostrophe; the letters that some languages write with one are not among them.
APOSTROPHES = "\u2019\u2018\u02bc\u02bb\u0060\u00b4"
ZERO_WIDTH_SPACE = "\u200b"
DEFAULT = "default"


@dataclass(frozen=True)
class TextRules:
    """How the transcripts of a language are written.

    Attributes:
        case: "lower", "upper" or "as_is".
        keep: characters that stay beside letters, their marks and digits. An apostrophe and a
            middle dot stay between letters only: elsewhere the one is a quotation mark.
        drop: characters that are left out without a space: marks that stand within words.
        spaces: whether there are spaces between words.
        dotless_i: whether the capital of ı is I and that of i is İ, as in Turkish.

    Raises:
        ValueError: the case is unknown.
    """

    case: str = "lower"
    keep: str = "'"
    drop: str = ""
    spaces: bool = True
    dotless_i: bool = False

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise ValueError(f"case is {self.case!r}; choose one of {', '.join(CASES)}")

    def apply(self, text: str) -> str:
        """Return a transcript as it is to be written; it may be empty."""
        text = unicodedata.normalize("NFC", text)
        if "'" in self.keep:
            text = re.sub(f"[{APOSTROPHES}]", "'", text)
        if self.dotless_i and self.case == "lower":
            text = text.replace("I", "\u0131").replace("\u0130", "i")
        if self.dotless_i and self.case == "upper":
            text = text.replace("i", "\u0130").replace("\u0131", "I")
        if self.case != "as_is":
            text = text.lower() if self.case == "lower" else text.upper()
        text = "".join(map(self._written, text))
        text = re.sub(r"(?<![^\W_])['\u00b7]|['\u00b7](?![^\W_])", " ", text)
        text = unicodedata.normalize("NFC", text)
        return ("" if not self.spaces else " ").join(text.split())

    def _written(self, character: str) -> str:
        kind = unicodedata.category(character)
        if character in self.drop:
            return ""
        if kind[0] in "LMN" or character in self.keep:
            return character
        return "" if kind == "Cf" and character != ZERO_WIDTH_SPACE else " "


def read_rules(path: str | Path) -> dict[str, TextRules]:
    """Read rules by language from a yaml of ``language: {option: value}``.

    A language takes what it does not say from ``default``, which is for all others too. ``zh`` is
    for zh-CN and zh-TW as well: see :func:`rules_of`.

    Raises:
        UserError: the file is no such yaml, or an option or its value is wrong.
    """
    try:
        found: Any = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as yaml: {' '.join(str(error).split())}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"{path}: write languages and their options, such as tr: {{case: lower}}")
    common = found.get(DEFAULT) or {}
    rules = {}
    for language, options in {DEFAULT: common, **found}.items():
        if not isinstance(options, Mapping):
            raise UserError(f"{path}: {language}: write options, such as {{case: lower}}")
        try:
            rules[language] = TextRules(**{**common, **options})
        except (TypeError, ValueError) as error:
            known = ", ".join(TextRules.__dataclass_fields__)
            raise UserError(f"{path}: {language}: {error}; there are: {known}") from None
    return rules


def rules_of(rules: Mapping[str, TextRules], language: str | None) -> TextRules:
    """Return the rules of a code, or else of its first part: "zh" of zh-CN, "tr" of tr_tr."""
    code = language or DEFAULT
    first = re.split("[-_]", code, maxsplit=1)[0]
    return rules.get(code) or rules.get(first) or rules[DEFAULT]
