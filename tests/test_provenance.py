"""Tests of mambaasr.provenance."""

import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mambaasr import provenance

ROOT = Path(provenance.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh():
    provenance.git_commit.cache_clear()
    yield
    provenance.git_commit.cache_clear()


def make_repository(folder, tracked):
    """A repository that holds a copy of the module, tracked or not."""
    package = folder / "mambaasr"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (folder / "other").write_text("")

    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", "-C", str(folder), *identity, *arguments],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip

    git("init", "-q")
    git("add", "other", *(["mambaasr"] if tracked else []))
    git("commit", "-q", "-m", "first")
    return package, git("rev-parse", "--short=12", "HEAD")


def test_commit_and_dirt(tmp_path, monkeypatch):
    package, commit = make_repository(tmp_path, tracked=True)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() == commit
    provenance.git_commit.cache_clear()
    (tmp_path / "untracked").write_text("")
    assert provenance.git_commit() == commit
    provenance.git_commit.cache_clear()
    (tmp_path / "other").write_text("changed")
    assert provenance.git_commit() == f"{commit} (dirty)"


def test_no_commit_of_somebody_elses_repository(tmp_path, monkeypatch):
    package, _ = make_repository(tmp_path, tracked=False)
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() is None


def test_environment_names_versions():
    found = provenance.environment()
    assert found["python"] == sys.version.split()[0]
    assert re.match(r"\d+\.\d+", found["torch"])
    assert re.search(r"\d+ cores$", found["cpu"])
    assert provenance.version("no_such_package") == "not installed"


def test_command_and_date():
    code = "import sys; sys.argv[1:] = ['a b', 'c']\nfrom mambaasr.provenance import command\n"
    code += "print(command())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip() == "-c 'a b' c"
    assert datetime.datetime.fromisoformat(provenance.now()).tzinfo is not None
