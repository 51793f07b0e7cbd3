"""Whole numbers in words, as they are recognised: lower case, no hyphens, accents in NFC."""

LIMIT = 1_000_000

EN_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
EN_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()

DE_SMALL = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn "
    "fünfzehn sechzehn siebzehn achtzehn neunzehn"
).split()
DE_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()

ES_SMALL = (
    "cero uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince "
    "dieciséis diecisiete dieciocho diecinueve veinte veintiuno veintidós veintitrés veinticuatro "
    "veinticinco veintiséis veintisiete veintiocho veintinueve"
).split()
ES_TENS = "treinta cuarenta cincuenta sesenta setenta ochenta noventa".split()
ES_HUNDREDS = (
    "ciento doscientos trescientos cuatrocientos quinientos seiscientos setecientos ochocientos "
    "novecientos"
).split()

FR_SMALL = (
    "zéro un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize"
).split()
FR_SMALL += ["dix sept", "dix huit", "dix neuf"]
FR_TENS = ["vingt", "trente", "quarante", "cinquante", "soixante", "soixante", "quatre vingt"]
FR_TENS += ["quatre vingt"]

IT_SMALL = (
    "zero uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici "
    "quindici sedici diciassette diciotto diciannove"
).split()
IT_TENS = "venti trenta quaranta cinquanta sessanta settanta ottanta novanta".split()


def number(n, lang):
    """Return a whole number from 0 to 999,999 in words.

    Args:
        n: the number.
        lang: en, de, es, fr or it.
    """
    if not 0 <= n < LIMIT:
        raise ValueError(f"{n} is not within 0..{LIMIT - 1}")
    return NUMBERS[lang](n)


def _english(n):
    if n < 20:
        return EN_SMALL[n]
    if n < 100:
        return _join(EN_TENS[n // 10 - 2], n % 10, _english)
    if n < 1000:
        return _join(f"{EN_SMALL[n // 100]} hundred", n % 100, _english)
    return _join(f"{_english(n // 1000)} thousand", n % 1000, _english)


def _german(n):
    if n < 20:
        return DE_SMALL[n]
    if n < 100:
        unit, ten = n % 10, DE_TENS[n // 10 - 2]
        return f"{_german_factor(unit)}und{ten}" if unit else ten
    step, name = (100, "hundert") if n < 1000 else (1000, "tausend")
    rest = n % step
    return f"{_german_factor(n // step)}{name}{_german(rest) if rest else ''}"


def _german_factor(n):
    """Return a number as it stands before a noun or another number: "ein", not "eins"."""
    words = _german(n)
    return words[:-1] if words.endswith("eins") else words


def _spanish(n):
    if n < 30:
        return ES_SMALL[n]
    if n < 100:
        ten = ES_TENS[n // 10 - 3]
        return f"{ten} y {ES_SMALL[n % 10]}" if n % 10 else ten
    if n == 100:
        return "cien"
    if n < 1000:
        return _join(ES_HUNDREDS[n // 100 - 1], n % 100, _spanish)
    thousands = n // 1000
    head = "mil" if thousands == 1 else f"{_spanish_factor(thousands)} mil"
    return _join(head, n % 1000, _spanish)


def _spanish_factor(n):
    """Return a number as it stands before "mil": "un" and "veintiún" for those that end in one."""
    words = _spanish(n)
    if words.endswith("veintiuno"):
        return words.removesuffix("uno") + "ún"
    return words.removesuffix("o") if words.endswith("uno") else words


def _french(n, before_mille=False):
    if n < 20:
        return FR_SMALL[n]
    if n < 100:
        ten = FR_TENS[n // 10 - 2]
        rest = n % 20 if n >= 60 else n % 10
        if rest == 0:
            return f"{ten}s" if n == 80 and not before_mille else ten
        link = " et " if rest in (1, 11) and n < 80 else " "
        return f"{ten}{link}{FR_SMALL[rest]}"
    if n < 1000:
        hundreds, rest = divmod(n, 100)
        head = "cent" if hundreds == 1 else f"{FR_SMALL[hundreds]} cent"
        if rest == 0:
            return f"{head}s" if hundreds > 1 and not before_mille else head
        return f"{head} {_french(rest, before_mille)}"
    head = "mille" if n < 2000 else f"{_french(n // 1000, before_mille=True)} mille"
    return _join(head, n % 1000, _french)


def _italian(n):
    words = _italian_plain(n)
    # "tre" takes an accent where it ends a longer word.
    return words[:-1] + "é" if words.endswith("tre") and words != "tre" else words


def _italian_plain(n):
    if n < 20:
        return IT_SMALL[n]
    if n < 100:
        ten, unit = IT_TENS[n // 10 - 2], n % 10
        # The tens lose their last vowel before uno and otto.
        return (ten[:-1] if unit in (1, 8) else ten) + (IT_SMALL[unit] if unit else "")
    if n < 1000:
        head = "cento" if n < 200 else f"{IT_SMALL[n // 100]}cento"
    else:
        head = "mille" if n < 2000 else f"{_italian_plain(n // 1000)}mila"
    rest = n % (100 if n < 1000 else 1000)
    return head + (_italian_plain(rest) if rest else "")


def _join(head, rest, words):
    return f"{head} {words(rest)}" if rest else head


NUMBERS = {"en": _english, "de": _german, "es": _spanish, "fr": _french, "it": _italian}
