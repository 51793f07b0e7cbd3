"""A package that was upgraded between two runs of a recipe: what is done again, and why."""

import os
import shutil

import pytest
from recipes import ROOT, call, environment, small_recipe, steps_of


@pytest.fixture
def home(test_data, tmp_path):
    """A small recipe beside a package of its own that may change."""
    for part in ("mambaasr", "egs/TEMPLATE"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    small_recipe(test_data, tmp_path)
    return tmp_path


def redone(home, first=False):
    """Run stages 1 to 5; return ``{task: reason}`` of what was done."""
    package = {"PYTHONPATH": os.pathsep.join([str(home / "site"), str(home)])}
    options = ("--stop_stage", "5", "--nj", "1")
    done = call(home / "egs/mini/asr1", *options, script="./run.sh", env=environment() | package)
    return {task: said for task, said in steps_of(done).items() if said != "done already"}


def edit(path, text):
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def upgrade(home, name, version):
    """Let another release of a package be the installed one."""
    folder = home / "site" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_the_second_run_does_what_changed_and_says_why(home):
    assert len(redone(home)) > 5
    assert redone(home) == {}

    edit(home / "mambaasr/data/filter.py", "\n# A comment is no change.\n")
    assert redone(home) == {}

    edit(home / "mambaasr/data/filter.py", "\nNEW = 1\n")
    again = redone(home)
    assert {task.partition(":")[0] for task in again} == {"4"}
    assert all("mambaasr/data/filter.py" in said for said in again.values())
    assert redone(home) == {}

    upgrade(home, "soxr", "99.1")
    again = redone(home)
    assert "3" in {task.partition(":")[0] for task in again}
    assert all("soxr" in said for task, said in again.items() if task.startswith("3"))
    assert redone(home) == {}
