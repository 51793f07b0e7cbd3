"""List the commands, or run one of them."""

import ast
import pkgutil
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import mambaasr
import mambaasr.bin
from mambaasr.command import run_main
from mambaasr.errors import UserError


def commands() -> dict[str, str]:
    """Return name -> first line of the docstring, for every command in mambaasr/bin.

    Sources are parsed, not imported, so that a list of commands costs no time.
    """
    found = {}
    for module in pkgutil.iter_modules(mambaasr.bin.__path__):
        if module.name != "main":
            source = Path(module.module_finder.path, f"{module.name}.py")
            tree = ast.parse(source.read_text(encoding="utf-8"), filename=str(source))
            found[module.name] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return found


def usage() -> str:
    """Return the text of ``mambaasr --help``."""
    known = commands()
    width = max(map(len, known))
    lines = [f"  {name:{width}}  {line}" for name, line in known.items()]
    return "\n".join(
        [
            "usage: mambaasr [--help] [--version] COMMAND ...",
            "",
            f"{mambaasr.__doc__}",
            "",
            "commands (mambaasr COMMAND --help, or python -m mambaasr.bin.COMMAND --help):",
            *lines,
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mambaasr`` with ``argv`` (default: the command line) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if argv[0] in ("-V", "--version"):
        print(f"mambaasr {mambaasr.__version__}")
        return 0
    name = argv[0].replace("-", "_")
    if name not in commands():
        raise UserError(f"there is no command '{argv[0]}'; `mambaasr --help` lists them")
    # As `python -m` would: worker processes and ESPnet's log then see an ordinary command line.
    sys.argv = [argv[0], *argv[1:]]
    runpy.run_module(f"mambaasr.bin.{name}", run_name="__main__", alter_sys=True)
    return 0


def entry() -> NoReturn:
    """Run the console script ``mambaasr``."""
    run_main(main)


if __name__ == "__main__":
    entry()
