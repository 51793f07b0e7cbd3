"""How a command ends: its exit code, and an error in one line."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from mambaasr.errors import UserError


def show_warnings() -> None:
    """Let warnings of a command without a log of its own appear as ``warning: ...``."""
    logging.basicConfig(format="warning: %(message)s", level=logging.WARNING)


def run_main(
    main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None
) -> NoReturn:
    """Run a command's ``main(argv)`` and exit; a :class:`UserError` becomes one line.

    Threads of OpenMP sleep while they wait, in this process and in those that it starts, unless the
    environment says otherwise: beside other work, threads that spin take the core that they wait
    for.
    """
    if "GOMP_SPINCOUNT" not in os.environ:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    try:
        try:
            code = main(argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a reader who has left can be noticed
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.status
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader (`| head`) has left; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code or 0)
