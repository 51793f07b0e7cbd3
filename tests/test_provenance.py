"""Tests of mambaasr.provenance."""

import datetime
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mambaasr import provenance
from mambaasr.errors import UserError

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


COMMAND = "from mambaasr.provenance import command; print(command())"


def test_a_start_is_written_down_and_its_history_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "git_commit", lambda: "0123456789ab (dirty)")
    entry = provenance.record_start(tmp_path, seed=3, ngpu=0, epoch=1)
    assert entry["commit"] == "0123456789ab" and entry["clean"] is False
    assert entry["seed"] == 3 and entry["device"] == provenance.cpu_model()
    assert entry["folder"] == os.getcwd()
    assert provenance.commit_of(entry) == "0123456789ab (dirty)"
    monkeypatch.setattr(provenance, "git_commit", lambda: "ba9876543210")
    provenance.record_start(tmp_path, seed=3, ngpu=0, epoch=5)
    found = provenance.starts(tmp_path)
    assert [each["epoch"] for each in found] == [1, 5]
    assert [each["clean"] for each in found] == [False, True]
    # One that begins anew has no history, and statistics have no epoch.
    provenance.record_start(tmp_path, seed=3, ngpu=0, epoch=1)
    assert [each["epoch"] for each in provenance.starts(tmp_path)] == [1]
    assert "epoch" not in provenance.record_start(tmp_path, seed=0, ngpu=0)
    monkeypatch.setattr(provenance, "git_commit", lambda: None)
    assert provenance.commit_of(provenance.record_start(tmp_path, 0, 0)) == "unknown"


def test_what_a_training_read_and_who_trained_it(tmp_path, monkeypatch):
    stats, exp = tmp_path / "stats", tmp_path / "exp"
    assert provenance.record_start(exp, 0, 0, epoch=1, statistics=stats)["statistics"] is None
    monkeypatch.setattr(provenance, "git_commit", lambda: "aaa")
    made = provenance.record_start(stats, seed=0, ngpu=0)
    monkeypatch.setattr(provenance, "git_commit", lambda: "bbb (dirty)")
    assert provenance.record_start(exp, 0, 0, epoch=1, statistics=stats)["statistics"] == made
    assert provenance.commits(exp) == ["bbb (dirty)"]
    # Of what version 0.1.0 trained nothing is known.
    assert provenance.commits(tmp_path / "nothing") == ["unknown"]
    old = tmp_path / "old"
    provenance.record_start(old, 0, 0, epoch=7)
    assert provenance.commits(old) == ["unknown", "bbb (dirty)"]


def test_nothing_is_known_of_a_folder_without_a_start(tmp_path):
    assert provenance.starts(tmp_path / "nowhere") == []


def test_a_torn_history_is_named(tmp_path):
    (tmp_path / "provenance.json").write_text("[{")
    with pytest.raises(UserError, match="provenance.json: cannot be read.*move it away"):
        provenance.record_start(tmp_path, 0, 0, epoch=2)
    assert provenance.commits(tmp_path) == ["unknown"]


def test_command_with_its_launcher_and_variables(tmp_path):
    (tmp_path / "show.py").write_text(COMMAND)
    variables = {"MAMBAASR_BACKEND": "naive", "MAMBAASR_ISA": "", "OMP_NUM_THREADS": "2"}
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    torchrun = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "4", "GROUP_WORLD_SIZE": "1"}

    def shown(**more):
        line = [sys.executable, "-m", "show", "--a", "b c"]
        done = subprocess.run(
            line, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    start, end = "MAMBAASR_BACKEND=naive OMP_NUM_THREADS=2 python -m", "show --a 'b c'"
    run = "torch.distributed.run"
    assert shown() == f"{start} {end}"
    assert shown(**torchrun) == f"{start} {run} --standalone --nproc_per_node 4 -m {end}"
    several = torchrun | {"GROUP_WORLD_SIZE": "2"}
    assert shown(**several) == f"{start} {run} --nnodes 2 --nproc_per_node 4 -m {end}"


def test_command_and_date():
    code = "import sys; sys.argv[1:] = ['a b', 'c']\nfrom mambaasr.provenance import command\n"
    code += "print(command())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.stdout.strip().endswith("-c 'a b' c")
    assert datetime.datetime.fromisoformat(provenance.now()).tzinfo is not None
