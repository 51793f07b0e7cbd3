"""Whole numbers in words, as they are recognised: lower case, no hyphens, accents in NFC."""

import re
from functools import cache

from num2words import num2words

LIMIT = 10_000
# Where num2words writes otherwise than this corpus: its hyphens and English "and" and commas are
# not spoken as words of their own, and its Italian drops vowels before otto and an accent.
REWRITE = {
    "en": ((r",| and\b", ""), ("-", " ")),
    "fr": (("-", " "),),
    "it": (("dicotto", "diciotto"), ("centott", "centoott"), (r"(?<=.)tre$", "tré")),
}


@cache
def number(n: int, lang: str, form: str = "cardinal") -> str:
    """Return a whole number from 0 to 9,999 in words.

    Args:
        n: the number.
        lang: en, de, es, fr or it.
        form: cardinal; in English and German also ordinal or year.

    Raises:
        ValueError: the number is out of this range.
    """
    if not 0 <= n < LIMIT:
        raise ValueError(f"{n} is not within 0..{LIMIT - 1}")
    words = num2words(n, to=form, lang=lang)
    for pattern, replacement in REWRITE.get(lang, ()):
        words = re.sub(pattern, replacement, words)
    return words
