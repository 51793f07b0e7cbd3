"""Every command: help without heavy imports, and options that do not change by accident.

`python -m tests.bin.test_commands` writes options.txt anew after a change that is meant.
"""

import argparse
import importlib
import subprocess
import sys
from pathlib import Path

from mambaasr.bin.main import commands

FROZEN = Path(__file__).with_name("options.txt")
HEAVY = {"torch", "espnet", "espnet2", "distributed", "matplotlib", "librosa", "scipy", "lightning"}
HELP = """
import runpy, sys
sys.argv = ["command", "--help"]
for name in sys.stdin.read().split():
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        assert not stop.code, name
print("imported:", *sorted(name for name in sys.modules if "." not in name))
"""


def test_help_is_light():
    """All in one process: what one command imports is what no command may."""
    names = sorted(commands())
    text = "\n".join(f"mambaasr.bin.{name}" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", HELP], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    help_of, _, imported = done.stdout.rpartition("imported:")
    assert help_of.count("usage:") == len(names)
    assert not HEAVY & set(imported.split())


def parser_of(name):
    """Return a command's parser."""
    return importlib.import_module(f"mambaasr.bin.{name}").get_parser()


def options():
    """Return "command --option" or "command POSITIONAL" for all that a command line can name."""
    found = set()
    for name in commands():
        for action in parser_of(name)._actions:
            if not isinstance(action, argparse._HelpAction):
                names = action.option_strings or [action.dest.upper()]
                found |= {f"{name} {each}" for each in names}
    return found


def test_options_are_frozen():
    """Recipes and users' scripts name options: one that goes or changes its name breaks them."""
    frozen = set(FROZEN.read_text(encoding="utf-8").splitlines())
    found = options()
    advice = "if meant: python -m tests.bin.test_commands"
    assert sorted(frozen - found) == [], f"gone; {advice}"
    assert sorted(found - frozen) == [], f"new; {advice}"


def test_every_option_is_explained():
    every = [(name, action) for name in commands() for action in parser_of(name)._actions]
    assert [(name, action.dest) for name, action in every if not action.help] == []


if __name__ == "__main__":
    FROZEN.write_text("\n".join(sorted(options())) + "\n", encoding="utf-8")
