"""Options that a yaml gives: an impossible one is named, with its value and what is allowed."""


def check_positive(owner, **values):
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


def check_sizes(owner, **values):
    """Check whole numbers; as :func:`check_positive`.

    Raises:
        ValueError: one is no whole number, or not positive.
    """
    check_positive(owner, **values)
    for name, value in values.items():
        if not isinstance(value, int):
            raise ValueError(f"{owner}: {name} is {value!r}; it must be a whole number")


def check_choice(name, value, choices):
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
