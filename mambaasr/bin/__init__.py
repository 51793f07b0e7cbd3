"""Thin commands: parse, call, exit code. Nothing imports this package but its own commands."""

import sys

from mambaasr.errors import UserError


def run_main(main, argv=None):
    """Run a command's ``main(argv)`` and exit; a :class:`UserError` becomes one line and code 2."""
    try:
        code = main(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)
