"""The exception for mistakes that a user can correct."""


class UserError(Exception):
    """A mistake in a file, an option or the environment that the user can correct.

    The message names the file and line where there is one, what is wrong, and the remedy.
    Commands print it as one line and exit with 2; it never needs a traceback.
    """
