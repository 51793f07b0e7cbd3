"""Sentences: numbers, digit strings, dates, times and short commands in five languages."""

import hashlib
import random

from spoken.words import number

LANGS = ("en", "de", "es", "fr", "it")
# Share of the texts that belongs to each split, in twentieths.
SHARES = {"dev": 2, "test": 4, "train": 14}

MONTHS = {
    "en": "january february march april may june july august september october november december",
    "de": "januar februar märz april mai juni juli august september oktober november dezember",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre "
    "diciembre",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre "
    "dicembre",
}
MONTHS = {lang: months.split() for lang, months in MONTHS.items()}
DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# {n}: a number from 2 to 99, {digits}: three or four digits, {date}, {time}: as below.
COMMANDS = {
    "en": (
        "set the volume to {n}",
        "set a timer for {n} minutes",
        "play track {n}",
        "go to page {n}",
        "go back {n} steps",
        "call {digits}",
        "dial {digits}",
        "open door {digits}",
        "wake me at {time}",
        "stop at {time}",
        "remind me on {date}",
        "turn on light {n}",
        "turn off light {n}",
    ),
    "de": (
        "stell die lautstärke auf {n}",
        "stell einen wecker auf {time}",
        "spiel titel {n}",
        "öffne seite {n}",
        "geh {n} schritte zurück",
        "ruf {digits} an",
        "wähle {digits}",
        "öffne tür {digits}",
        "weck mich um {time}",
        "stopp um {time}",
        "licht {n} an",
        "licht {n} aus",
    ),
    "es": (
        "pon el volumen a {n}",
        "pon la canción {n}",
        "abre la página {n}",
        "llama al {digits}",
        "marca {digits}",
        "abre la puerta {digits}",
        "despiértame a {time}",
        "para a {time}",
        "enciende la luz {n}",
        "apaga la luz {n}",
        "recuérdame {date}",
    ),
    "fr": (
        "mets le volume à {n}",
        "joue le titre {n}",
        "ouvre la page {n}",
        "appelle le {digits}",
        "compose le {digits}",
        "ouvre la porte {digits}",
        "réveille moi à {time}",
        "arrête à {time}",
        "allume la lampe {n}",
        "éteins la lampe {n}",
        "rappelle moi {date}",
    ),
    "it": (
        "imposta il volume a {n}",
        "suona il brano {n}",
        "apri la pagina {n}",
        "chiama {digits}",
        "componi {digits}",
        "apri la porta {digits}",
        "svegliami {time}",
        "fermati {time}",
        "accendi la luce {n}",
        "spegni la luce {n}",
        "ricordamelo il {date}",
    ),
}


def sentence(lang: str, rng: random.Random) -> str:
    """Draw a sentence.

    Args:
        lang: one of LANGS.
        rng: source of the draws.
    """
    kind = rng.choice(("number", "digits", "date", "time", "command", "command"))
    if kind == "command":
        template = rng.choice(COMMANDS[lang])
        slot = template[template.index("{") + 1 : template.index("}")]
        draw = _count if slot == "n" else KINDS[slot]
        return template.format(**{slot: draw(lang, rng)})
    return KINDS[kind](lang, rng)


def split_of(lang: str, text: str) -> str:
    """Return the split (train, dev or test) that a text belongs to, whatever else is drawn.

    A hash of the text decides, so no text can stand in two splits.
    """
    slot = int.from_bytes(hashlib.sha256(f"{lang}:{text}".encode()).digest()[:8], "big")
    slot %= sum(SHARES.values())
    for split, share in SHARES.items():
        if slot < share:
            return split
        slot -= share
    raise AssertionError("the shares cover every slot")


def _number(lang, rng):
    """A number below ten thousand; each length in digits is as frequent as the others."""
    digits = rng.randint(1, 4)
    return number(rng.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits), lang)


def _count(lang, rng):
    return number(rng.randint(2, 99), lang)


def _digits(lang, rng):
    return " ".join(number(rng.randrange(10), lang) for _ in range(rng.randint(3, 4)))


def _date(lang, rng):
    month = rng.randrange(12)
    day = rng.randint(1, DAYS[month])
    name, year = MONTHS[lang][month], rng.randint(1900, 2030)
    with_year = rng.random() < 0.3
    if lang == "en":
        ordinal = number(day, lang, "ordinal")
        date = f"{name} {ordinal}" if rng.random() < 0.5 else f"the {ordinal} of {name}"
        return f"{date} {number(year, lang, 'year')}" if with_year else date
    if lang == "de":
        date = f"{rng.choice(('der', 'am'))} "
        date += number(day, lang, "ordinal") + ("n" if date == "am " else "") + f" {name}"
        return f"{date} {number(year, lang, 'year')}" if with_year else date
    if lang == "es":
        date = f"el {'primero' if day == 1 else number(day, lang)} de {name}"
        return f"{date} de {number(year, lang)}" if with_year else date
    if lang == "fr":
        date = f"le {'premier' if day == 1 else number(day, lang)} {name}"
        return f"{date} {number(year, lang)}" if with_year else date
    date = f"{'primo' if day == 1 else number(day, lang)} {name}"
    return f"{date} {number(year, lang)}" if with_year else date


def _time(lang, rng):
    hour, minute = rng.randint(2, 12), rng.randint(10, 59)
    minutes = number(minute, lang)
    if lang == "en":
        return f"{number(hour, lang)} {minutes}"
    if lang == "de":
        return f"{number(hour, lang)} uhr {minutes}"
    if lang == "es":
        return f"las {number(hour, lang)} y {minutes}"
    if lang == "fr":
        return f"{number(hour, lang)} heures {minutes}"
    return f"alle {number(hour, lang)} e {minutes}"


KINDS = {"number": _number, "digits": _digits, "date": _date, "time": _time}
