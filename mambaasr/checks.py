"""Options that a yaml gives: an impossible one is named, with its value and what is allowed."""

import math
from collections.abc import Collection


def check_positive(owner: str, **values: object) -> None:
    """Check numbers.

    Args:
        owner: the class's name, for the message.
        **values: what was given, by the option's name.

    Raises:
        ValueError: one is no number, or not positive.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{owner}: {name} is {value!r}; it must be positive")


def check_sizes(owner: str, **values: object) -> None:
    """Check whole numbers; as :func:`check_positive`.

    Raises:
        ValueError: one is no whole number, or not positive.
    """
    check_positive(owner, **values)
    for name, value in values.items():
        if not isinstance(value, int):
            raise ValueError(f"{owner}: {name} is {value!r}; it must be a whole number")


def check_counts(**values: object) -> None:
    """Check whole numbers that may be 0.

    Args:
        **values: what was given, by the option's name.

    Raises:
        ValueError: one is no whole number, or negative.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{name} is {value!r}; it must be a whole number")
        if value < 0:
            raise ValueError(f"{name} is {value}; it must not be negative")


def check_flags(**values: object) -> None:
    """Check switches: the text 'false' would count as true.

    Raises:
        ValueError: one is neither true nor false.
    """
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}; it must be true or false")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Check a name.

    Args:
        name: the option's name, for the message.
        value: what was given.
        choices: what is allowed.

    Raises:
        ValueError: it is none of ``choices``.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}; choose one of {', '.join(choices)}")


def check_rates(owner: str, **values: object) -> None:
    """Check shares, such as dropout's; as :func:`check_positive`.

    Raises:
        ValueError: one does not lie in [0, 1).
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"{owner}: {name} is {value!r}; it must lie in [0, 1)")


def check_range(
    owner: str, name: str, value: object, above: float = -math.inf
) -> tuple[float, float]:
    """Check a pair of numbers.

    Args:
        owner: the class's name, for the message.
        name: the option's name.
        value: what was given.
        above: what the first number must lie above.

    Returns:
        (lowest, highest), floats.

    Raises:
        ValueError: it is no pair, or ``above < lowest <= highest`` does not hold.
    """
    try:
        lowest, highest = (float(x) for x in value)
    except (TypeError, ValueError):
        lowest, highest = math.nan, math.nan
    if not above < lowest <= highest:
        bound = "" if above == -math.inf else f" above {above:g}"
        raise ValueError(f"{owner}: {name} is {value!r}; it must be [lowest, highest]{bound}")
    return lowest, highest
