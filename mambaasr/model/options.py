"""What the options of ``model: multilingual`` may be."""

from collections.abc import Mapping, Sequence

from mambaasr.checks import check_choice

CONDITIONING = ("none", "language", "family")


def check_options(
    languages: Sequence[str] | None = None,
    conditioning: str = "none",
    families: Mapping[str, str] | None = None,
    lid_weight: float = 0.0,
    *,
    complete: bool = True,
    **others: object,
) -> None:
    """Refuse what cannot be, importing nothing.

    Args:
        languages, conditioning, families, lid_weight: as the model gets them.
        complete: whether languages that are not given are wrong; else the data will say them.
        others: ESPnet's options, not looked at.

    Raises:
        ValueError: names the option and what is allowed.
    """
    check_choice("conditioning", conditioning, CONDITIONING)
    if isinstance(lid_weight, bool) or not isinstance(lid_weight, (int, float)) or lid_weight < 0:
        raise ValueError(f"lid_weight is {lid_weight!r}; it must be a number of at least 0")
    if complete and languages is None and (conditioning != "none" or lid_weight):
        raise ValueError("languages is not given; list the codes that utt2lang has")
    if languages is not None and not isinstance(languages, (list, tuple)):
        raise ValueError(f"languages is {languages!r}; it must be a list of codes")
    for code in languages or ():
        if not isinstance(code, str) or not code or code != "".join(code.split()):
            raise ValueError(
                f"languages holds {code!r}; a code is a text without spaces (yaml takes no for "
                "false: write 'no')"
            )
    if languages is not None and len(set(languages)) < max(1, len(languages)):
        raise ValueError(f"languages is {list(languages)}; it must hold each code once")
    if conditioning == "language" and lid_weight:
        raise ValueError(
            f"lid_weight is {lid_weight} with conditioning: language; a head would only read "
            "the language that it is given: choose one of them"
        )
    if conditioning == "family":
        if not isinstance(families, dict):
            raise ValueError(f"families is {families!r}; conditioning: family needs code: family")
        missing = [code for code in languages or () if not isinstance(families.get(code), str)]
        if missing:
            raise ValueError(f"families names no family of {', '.join(missing)}")
