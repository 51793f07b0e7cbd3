"""The exceptions of which a command makes one line, and which failures may pass."""

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


# CUDA's and Triton's words for an error after which every call of the process fails.
_GPU_LOST = ("cuda error", "error [cuda]")


def may_pass(error: Exception) -> bool:
    """Whether an error comes from the state of the machine: memory, a GPU, a file system."""
    if isinstance(error, TransientError | MemoryError | OSError):
        return True
    # torch has no class of its own for the CPU's memory.
    said = str(error).lower()
    words = "out of memory", "allocate memory", *_GPU_LOST
    return isinstance(error, RuntimeError) and any(each in said for each in words)


def lost_gpu(error: Exception) -> bool:
    """Whether an error leaves its process without a GPU."""
    said = str(error).lower()
    return isinstance(error, RuntimeError) and any(each in said for each in _GPU_LOST)
