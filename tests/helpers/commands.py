"""Which modules of this package a command loads when it runs for real."""

import json
import os
import subprocess
import sys

from mambaasr.source import ROOT

LOADED = """
import atexit, json, runpy, sys
from pathlib import Path
out, module, *sys.argv = sys.argv[1:]
sys.argv.insert(0, module)

def write():
    files = [getattr(one, "__file__", None) for one in list(sys.modules.values())]
    Path(out).write_text(json.dumps([str(Path(file).resolve()) for file in files if file]))

atexit.register(write)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def loaded(command, folder):
    """Run ``["-m", module, argument, ...]`` in a folder; return the files that it loaded."""
    out = folder / "loaded.json"
    line = [sys.executable, "-c", LOADED, str(out), *command[1:]]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    files = {file.removeprefix(f"{ROOT}/") for file in json.loads(out.read_text())}
    return {file for file in files if file.startswith("mambaasr/")}
