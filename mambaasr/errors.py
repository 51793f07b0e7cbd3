"""The exceptions of which a command makes one line: mistakes, and failures that may pass."""

import os

# What a command exits with where the same call is worth another try.
TRY_AGAIN = os.EX_TEMPFAIL


class UserError(Exception):
    """A mistake in a file, an option or the environment that the user can correct.

    The message names the file and line where there is one, what is wrong, and the remedy.
    Commands print it as one line and exit with its status; it never needs a traceback.
    """

    status = 2


class TransientError(UserError):
    """A failure of the machine's, such as full memory, that may be gone at another try."""

    status = TRY_AGAIN
