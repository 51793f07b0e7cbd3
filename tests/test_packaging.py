"""setup.py asks for what the code imports."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def imported(folder):
    """Return top-level module -> a file that imports it, for all Python files below a folder."""
    found = {}
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            else:
                continue
            found |= {name.partition(".")[0]: path for name in names}
    return found


def asked_for():
    """Return the distributions that setup.py names, extras for developers aside."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    text = text[text.index("install_requires") : text.index('"dev": [')]
    return {name.lower() for name in re.findall(r'"([A-Za-z][\w.-]*)[^"]*"', text)}


@pytest.mark.parametrize("folder", ["mambaasr", "egs"])
def test_every_import_is_asked_for(folder):
    distributions = importlib.metadata.packages_distributions()
    own = {"mambaasr"} | {path.stem for path in (ROOT / folder).rglob("*.py")}
    own |= {path.parent.name for path in (ROOT / folder).rglob("*.py")}
    missing = {}
    for module, path in imported(ROOT / folder).items():
        if module in sys.stdlib_module_names or module in own:
            continue
        names = {name.lower() for name in distributions.get(module, [module.replace("_", "-")])}
        if not names & asked_for():
            missing[module] = str(path.relative_to(ROOT))
    assert missing == {}


def test_a_folder_of_its_name_does_not_hide_it(tmp_path):
    """As where a clone is called `mambaasr` and Python starts beside it."""
    (tmp_path / "mambaasr").mkdir()
    code = "import mambaasr.errors; print(mambaasr.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.endswith("__init__.py\n"), done.stdout + done.stderr
