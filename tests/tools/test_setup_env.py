"""tools/setup_env.sh decides rightly; what it installs is checked by every `make test`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNREACHABLE = "http://127.0.0.1:9/whl/cpu"


@pytest.fixture
def clone(tmp_path):
    """A copy of what the script reads, in a folder whose name asks for careful quoting."""
    folder = tmp_path / "a clone's folder, $(false)"
    (folder / "tools").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "tools/setup_env.sh", "tools/requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(clone, *arguments, path=None, **variables):
    """Run the script with a clean environment, by default with nothing of the network."""
    env = {"PATH": path or os.environ["PATH"], "HOME": str(clone)}
    env |= {"TORCH_CPU_INDEX": UNREACHABLE, "PYTHON": sys.executable, **variables}
    return subprocess.run(
        [shutil.which("bash"), str(clone / "tools/setup_env.sh"), *arguments],
        env={key: value for key, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plan(clone, **variables):
    """Return the printed plan as a dict."""
    result = run(clone, "--dry-run", **variables)
    assert result.returncode == 0, result.stderr
    return dict(line.split(": ", 1) for line in result.stdout.splitlines())


def programs(folder, names, **scripts):
    """Make a PATH that holds these programs of the machine and these shell scripts, no more."""
    folder.mkdir()
    for name in names:
        (folder / name).symlink_to(shutil.which(name))
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


BASICS = ["bash", "dirname", "sed", "cut", "cat", "cksum", "grep", "uname", "env"]


def test_help_names_every_variable(clone):
    result = run(clone, "--help")
    assert result.returncode == 0
    for variable in ("PYTHON", "TORCH", "USE_ACTIVE_ENV", "--dry-run"):
        assert variable in result.stdout


def test_unknown_argument_is_refused(clone):
    result = run(clone, "--dryrun")
    assert result.returncode == 2
    assert "unknown argument '--dryrun'" in result.stderr


def test_dry_run_changes_nothing(clone):
    before = sorted(clone.rglob("*"))
    found = plan(clone)
    assert sorted(clone.rglob("*")) == before
    assert found["environment"] == f"{clone}/.venv"
    assert found["action"] == "create"
    assert found["python"].startswith(sys.executable)


def test_cpu_wheels_unreachable_falls_back_and_says_so(clone):
    found = plan(clone, TORCH="cpu")
    assert found["torch"].startswith("cpu, from the package index, because")


def test_cpu_wheels_reachable_are_taken(clone):
    serve = [sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"]
    (clone / "torch").mkdir()
    env = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        serve, cwd=clone, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            port = re.search(r"port (\d+)", server.stdout.readline()).group(1)
            found = plan(clone, TORCH="cpu", TORCH_CPU_INDEX=f"http://127.0.0.1:{port}")
        finally:
            server.terminate()
    assert found["torch"] == "cpu, from PyTorch's CPU wheels"


def test_torch_by_hand(clone):
    assert plan(clone, TORCH="cuda")["torch"] == "cuda, from the package index"
    result = run(clone, "--dry-run", TORCH="rocm")
    assert result.returncode == 2
    assert "TORCH=rocm: say cpu or cuda" in result.stderr


@pytest.mark.parametrize(
    ("answer", "flavour"),
    [("echo 'GPU 0: NVIDIA A100'", "cuda"), ("echo 'No devices were found'; exit 6", "cpu")],
)
def test_gpu_decides(clone, tmp_path, answer, flavour):
    folder = programs(tmp_path / "bin", [], **{"nvidia-smi": answer})
    found = plan(clone, path=f"{folder}:{os.environ['PATH']}")
    assert found["torch"].startswith(f"{flavour}, ")


def test_no_python_says_what_to_install(clone, tmp_path):
    old = "case $2 in *version_info*) echo 3.9;; esac"
    path = programs(tmp_path / "bin", BASICS, python3=old)
    result = run(clone, "--dry-run", path=path, PYTHON=None)
    assert result.returncode == 2
    assert "no Python 3.12 or 3.13 was found" in result.stderr
    assert "uv python install 3.12" in result.stderr
    result = run(clone, "--dry-run", PYTHON="/nowhere/python3.12")
    assert result.returncode == 2
    assert "PYTHON=/nowhere/python3.12" in result.stderr


def test_python_that_does_not_start_is_passed_over(clone, tmp_path):
    good = f'exec "{sys.executable}" "$@"'
    scripts = {"python3.12": "echo 'pyenv: command not found' >&2; exit 127", "python3.13": good}
    path = programs(tmp_path / "bin", BASICS, **scripts)
    assert plan(clone, path=path, PYTHON=None)["python"].startswith("python3.13 (")


def test_python_of_pyenv_or_uv_is_found_without_being_activated(clone, tmp_path):
    hidden = clone / ".pyenv/versions/3.13.9/bin/python"
    hidden.parent.mkdir(parents=True)
    hidden.symlink_to(sys.executable)
    path = programs(tmp_path / "bin", BASICS)
    assert plan(clone, path=path, PYTHON=None)["python"].startswith(f"{hidden} (")
    hidden.unlink()
    by_uv = f"case $* in *'python find'*) echo {sys.executable};; esac"
    path = programs(tmp_path / "with_uv", BASICS, uv=by_uv)
    assert plan(clone, path=path, PYTHON=None)["python"].startswith(f"{sys.executable} (")


def test_missing_ensurepip_names_the_debian_package(clone, tmp_path):
    bare = "case $2 in *version_info*) echo 3.12;; *) exit 1;; esac"
    path = programs(tmp_path / "bin", BASICS, **{"python3.12": bare})
    result = run(clone, "--dry-run", path=path, PYTHON=None)
    assert result.returncode == 2
    assert "apt install python3.12-venv" in result.stderr
    # uv makes environments without ensurepip.
    path = programs(tmp_path / "with_uv", BASICS, uv="exit 0", **{"python3.12": bare})
    assert plan(clone, path=path, PYTHON=None)["python"] == "python3.12 (3.12)"


def test_no_compiler_is_said(clone, tmp_path):
    path = programs(tmp_path / "bin", BASICS)
    found = plan(clone, path=path)
    assert found["compiler"].startswith("none")
    assert "pure torch" in found["compiler"]


def test_active_environment(clone, tmp_path):
    result = run(clone, "--dry-run", USE_ACTIVE_ENV="1")
    assert result.returncode == 2
    assert "no environment is active" in result.stderr
    mine = tmp_path / "mine"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", mine], check=True)
    found = plan(clone, USE_ACTIVE_ENV="1", VIRTUAL_ENV=str(mine))
    assert (found["environment"], found["action"]) == (str(mine), "update")
    # A torch that is there is the user's own, and stays.
    site = next(mine.glob("lib/python*/site-packages"))
    (site / "torch-2.7.1.dist-info").mkdir()
    (site / "torch-2.7.1.dist-info/METADATA").write_text("Name: torch\nVersion: 2.7.1\n")
    found = plan(clone, USE_ACTIVE_ENV="1", VIRTUAL_ENV=str(mine))
    assert "2.7.1 stays" in found["torch"]


def make_env(clone):
    """What a finished run leaves: an environment that imports the package, mark and stamp."""
    env = clone / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    site = next(env.glob("lib/python*/site-packages"))
    (site / "mambaasr.py").write_text("")
    names = ("setup.py", "pyproject.toml", "tools/requirements.lock")
    text = b"".join((clone / name).read_bytes() for name in names)
    cksum = subprocess.run(["cksum"], input=text, capture_output=True, check=True).stdout.split()
    version = ".".join(map(str, sys.version_info[:2]))
    (env / "mambaasr-env.made-here").touch()
    (env / "mambaasr-env.stamp").write_text(
        f"root={clone}\ninputs={cksum[0].decode()}\ntorch=cpu\npython={version}\n"
    )
    return env


def test_nothing_to_do_when_current(clone):
    make_env(clone)
    result = run(clone, PYTHON=None)
    assert result.returncode == 0
    assert result.stdout == f"environment: {clone}/.venv is current\n"


def test_changed_lock_updates_in_place(clone):
    make_env(clone)
    with open(clone / "tools/requirements.lock", "a") as stream:
        stream.write("# changed\n")
    assert plan(clone)["action"] == "update"


def test_python_that_is_no_longer_supported_starts_afresh(clone):
    stamp = make_env(clone) / "mambaasr-env.stamp"
    stamp.write_text(re.sub(r"python=.*", "python=3.11", stamp.read_text()))
    assert plan(clone)["action"] == "recreate"


def test_other_torch_by_hand_starts_afresh(clone):
    make_env(clone)
    assert plan(clone, TORCH="cuda")["action"] == "recreate"


def test_killed_half_way_starts_afresh(clone):
    env = make_env(clone)
    (env / "mambaasr-env.stamp").unlink()
    assert plan(clone)["action"] == "recreate"


def test_broken_or_moved_environment_starts_afresh(clone):
    env = make_env(clone)
    next(env.glob("lib/python*/site-packages/mambaasr.py")).unlink()
    assert plan(clone)["action"] == "recreate"
    moved = clone.with_name("moved")
    clone.rename(moved)
    assert plan(moved)["action"] == "recreate"


def test_environment_of_the_user_is_never_removed(clone):
    (clone / ".venv").mkdir()
    (clone / ".venv/precious").touch()
    result = run(clone)
    assert result.returncode == 2
    assert "was not made by this script" in result.stderr
    assert (clone / ".venv/precious").exists()


def test_lock_pins_every_requirement():
    """Every name in setup.py, the extra cuda aside, has exactly one pin for any Python."""
    from packaging.requirements import Requirement

    lines = (ROOT / "tools/requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    pinned = {pin.name for pin in pins}
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL).group(1)
    required += re.search(r'"dev": \[(.*?)\]', text, re.DOTALL).group(1)
    wanted = {Requirement(name).name for name in re.findall(r'"([^"]+)"', required)}
    assert wanted and wanted <= pinned


def test_full_disk_is_refused_before_anything_is_made(clone, tmp_path):
    table = "echo 'Filesystem 1M-blocks Used Available Capacity Mounted'; echo 'd 9 8 1 99% /'"
    folder = programs(tmp_path / "bin", [], df=table)
    result = run(clone, path=f"{folder}:{os.environ['PATH']}")
    assert result.returncode == 2
    assert "has 1 MB free" in result.stderr
    assert not (clone / ".venv").exists()
