"""tools/setup_env.sh decides rightly; what it installs is checked by every `make test`."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """A copy of what the script reads, in a folder whose name asks for careful quoting."""
    folder = tmp_path / "a clone's folder, $(false)"
    (folder / "tools").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "tools/setup_env.sh", "tools/requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def run(clone, *arguments, path=None, **variables):
    """Run the script with a clean environment."""
    env = {"PATH": path or os.environ["PATH"], "HOME": str(clone)}
    env |= variables
    return subprocess.run(
        [shutil.which("bash"), str(clone / "tools/setup_env.sh"), *arguments],
        env=env,
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


def programs(folder, **scripts):
    """Make a folder of shell scripts to stand in front of the PATH; return the PATH."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def fake_uv(clone, answer="exit 0"):
    """A uv that writes its commands to uv.log and makes an environment that imports the package."""
    version = ".".join(map(str, sys.version_info[:2]))
    return programs(
        clone / "bin",
        uv=f"""
        printf '%s\\n' "$*" >>'{clone.parent}/uv.log'
        case "$*" in
            *'python find'*) echo '{sys.executable}' ;;
            venv*)
                target="${{*: -1}}"
                mkdir -p "$target/bin" && echo 'prompt = mambaasr' >"$target/pyvenv.cfg"
                answer='case $2 in *version_info*) echo {version};; esac'
                printf '#!/bin/sh\\n%s\\n' "$answer" >"$target/bin/python"
                chmod +x "$target/bin/python" ;;
            *) {answer} ;;
        esac""",
    )


def test_help_names_every_variable(clone):
    result = run(clone, "--help")
    assert result.returncode == 0
    for variable in ("PYTHON", "TORCH", "TORCH_CPU_INDEX", "USE_ACTIVE_ENV", "--dry-run"):
        assert variable in result.stdout


def test_unknown_argument_is_refused(clone):
    result = run(clone, "--dryrun")
    assert result.returncode == 2
    assert "unknown argument '--dryrun'" in result.stderr


def test_dry_run_changes_nothing(clone):
    before = sorted(clone.rglob("*"))
    assert plan(clone) == {"environment": f"{clone}/.venv", "action": "create", "torch": "cpu"}
    assert sorted(clone.rglob("*")) == before


def test_torch_by_hand(clone):
    assert plan(clone, TORCH="cuda")["torch"] == "cuda"
    result = run(clone, "--dry-run", TORCH="rocm")
    assert result.returncode == 2
    assert "TORCH=rocm: say cpu or cuda" in result.stderr


@pytest.mark.parametrize(
    ("answer", "flavour"),
    [("echo 'GPU 0: NVIDIA A100'", "cuda"), ("echo 'No devices were found'; exit 6", "cpu")],
)
def test_gpu_decides(clone, tmp_path, answer, flavour):
    assert (
        plan(clone, path=programs(tmp_path / "bin", **{"nvidia-smi": answer}))["torch"] == flavour
    )


@pytest.mark.parametrize("reachable", [True, False])
def test_what_uv_is_asked_to_do(clone, reachable):
    refuse = "exit 0" if reachable else "[[ $* != *--default-index* ]]"
    result = run(clone, path=fake_uv(clone, refuse), TORCH_CPU_INDEX="http://wheels")
    assert result.returncode == 0, result.stderr
    said = (clone.parent / "uv.log").read_text().splitlines()
    said = [line for line in said if not line.startswith("--version")]
    assert said[0] == "python find --system --no-project 3.12"
    assert said[1].startswith("venv ") and said[1].endswith(f"{sys.executable} {clone}/.venv")
    wheels = [line for line in said[2:-1] if "--default-index http://wheels torch==" in line]
    assert wheels == said[2:-1]
    assert ["--dry-run" in line for line in wheels] == [True, False][: 1 + reachable]
    assert ("cannot be reached" in result.stdout) != reachable
    assert "--constraints" in said[-1] and said[-1].endswith(f"--editable {clone}[dev]")
    assert run(clone).stdout == f"environment: {clone}/.venv is current\n"


def test_an_interrupted_installation_starts_afresh(clone):
    path = fake_uv(clone, "[[ $* != *--editable* ]]")
    assert run(clone, path=path).returncode != 0
    assert plan(clone)["action"] == "recreate"
    assert run(clone, path=fake_uv(clone)).returncode == 0
    assert run(clone).stdout.endswith("is current\n")


def test_pip_fetches_uv(clone, tmp_path):
    uv = clone.parent / "with uv"
    fake_uv(clone)
    uv.mkdir()
    (clone / "bin/uv").rename(uv / "uv")
    pip = f"""[[ $* == *"-m pip install"*" uv=="* ]] || exit 1
        while [[ $1 != --target ]]; do shift; done
        mkdir -p "$2" && cp -r '{uv}' "$2/bin" """
    path = f"{Path(programs(tmp_path / 'bin', python3=pip).split(':')[0])}:/usr/bin:/bin"
    result = run(clone, path=path)
    assert result.returncode == 0, result.stderr
    # Interrupted, and again by make, which puts the environment's Python first; it has no pip.
    (clone / ".venv/mambaasr-env.stamp").unlink()
    own = programs(clone / ".venv/bin", python3="exit 1").split(":")[0]
    result = run(clone, path=f"{own}:{path}")
    assert result.returncode == 0, result.stderr
    shutil.rmtree(clone / ".venv")
    nothing = "echo 'No module named pip' >&2; exit 1"
    names = ("python3", "python3.12", "python3.13", "python")
    path = (
        f"{programs(tmp_path / 'bin', **dict.fromkeys(names, nothing)).split(':')[0]}:/usr/bin:/bin"
    )
    result = run(clone, path=path)
    assert result.returncode == 2
    assert "there is no uv" in result.stderr and "No module named pip" in result.stderr


def test_no_python_says_what_to_install(clone):
    broken = programs(clone / "bin", uv="[[ $* == --version ]]")
    result = run(clone, path=broken)
    assert result.returncode == 2
    assert "no Python 3.12 or 3.13 was found" in result.stderr


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
    assert found["torch"] == "2.7.1 stays"


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


def test_changed_lock_updates_in_place(clone):
    make_env(clone)
    assert run(clone).stdout == f"environment: {clone}/.venv is current\n"
    with open(clone / "tools/requirements.lock", "a") as stream:
        stream.write("# changed\n")
    assert plan(clone)["action"] == "update"


@pytest.mark.parametrize("change", ["python", "torch", "killed", "broken", "moved"])
def test_what_cannot_be_updated_starts_afresh(clone, change):
    env, variables = make_env(clone), {}
    stamp = env / "mambaasr-env.stamp"
    if change == "python":
        stamp.write_text(re.sub(r"python=.*", "python=3.11", stamp.read_text()))
    elif change == "torch":
        variables["TORCH"] = "cuda"
    elif change == "killed":
        stamp.unlink()
    elif change == "broken":
        next(env.glob("lib/python*/site-packages/mambaasr.py")).unlink()
    else:
        clone = clone.rename(clone.with_name("moved"))
    assert plan(clone, **variables)["action"] == "recreate"


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
    from packaging.utils import canonicalize_name

    lines = (ROOT / "tools/requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.lstrip().startswith("#")]
    assert all(str(pin.specifier).startswith("==") for pin in pins)
    pinned = {pin.name for pin in pins}
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    required = re.search(r"install_requires=\[(.*?)\]", text, re.DOTALL).group(1)
    required += re.search(r'"dev": \[(.*?)\]', text, re.DOTALL).group(1)
    wanted = {
        canonicalize_name(Requirement(name).name) for name in re.findall(r'"([^"]+)"', required)
    }
    assert wanted and wanted <= pinned


@pytest.mark.parametrize(("torch", "free"), [("cpu", 1), ("cuda", 5000)])
def test_full_disk_is_refused_before_anything_is_made(clone, tmp_path, torch, free):
    """The CUDA libraries alone are larger than the rest."""
    table = f"echo 'Filesystem 1M-blocks Used Available'; echo 'd 9 8 {free} 99% /'"
    path = programs(tmp_path / "bin", df=table)
    result = run(clone, path=path, TORCH=torch)
    assert result.returncode == 2
    assert f"has {free} MB free" in result.stderr
    assert not (clone / ".venv").exists()
