"""mambaasr.doctor: each finding, on machines that lack something."""

import shlex
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mambaasr import doctor
from mambaasr.doctor import FAIL, NOTE, OK, Gpus

A100 = Gpus(("NVIDIA A100",), (12, 8))


def test_python_outside_the_pins(monkeypatch):
    assert doctor.python_version().state == OK
    monkeypatch.setattr(doctor.sys, "version_info", (3, 11, 0))
    finding = doctor.python_version()
    assert finding.state == FAIL and "3.12 or 3.13" in finding.detail and finding.remedy


def test_a_missing_package_is_named_with_the_command_that_runs(monkeypatch):
    real = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda name: None if name == "jiwer" else real(name))
    if real("mambaasr") is None:
        pytest.skip("mambaasr runs from its folder here and is not installed")
    (finding,) = [each for each in doctor.packages() if each.state == FAIL]
    assert finding.name == "jiwer"
    command = shlex.split(finding.remedy)
    assert command[0] == sys.executable and "jiwer>=4" in command
    checked = subprocess.run(
        [*command, "--dry-run", "--offline", "--no-deps"]
        if "uv" in command
        else [*command, "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


def test_not_installed_at_all(monkeypatch):
    monkeypatch.setattr(doctor, "installed", lambda name: None)
    (finding,) = doctor.packages()
    assert (finding.state, finding.name) == (FAIL, "mambaasr")
    assert finding.remedy.startswith("make -C ")
    naive = next(iter(doctor.backends(Gpus())))
    assert naive.state == FAIL


def test_wrong_version_is_no_match():
    from packaging.requirements import Requirement

    wanted = [Requirement("pytest>=1"), Requirement("ruff<0.0.1"), Requirement("no-such-name")]
    unmet = [(requirement.name, version) for requirement, version in doctor.unmet(wanted)]
    assert [name for name, _ in unmet] == ["ruff", "no-such-name"]
    assert unmet[1][1] is None


def test_torch_is_described_as_torch_does():
    torch = pytest.importorskip("torch")
    assert doctor.torch_cuda() == torch.version.cuda
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    assert list(doctor.nvidia_gpus().names) == names


@pytest.mark.parametrize(
    ("cuda", "gpus", "state", "word"),
    [
        (None, Gpus(), OK, "the CPU"),
        ("13.0", Gpus(), OK, "CUDA 13.0"),
        (None, A100, NOTE, "idle"),
        ("13.0", A100, NOTE, "newer than this machine's NVIDIA driver"),
        ("12.8", A100, OK, "CUDA 12.8"),
    ],
)
def test_torch_against_the_gpu(monkeypatch, cuda, gpus, state, word):
    monkeypatch.setattr(doctor, "torch_cuda", lambda: cuda)
    finding = doctor.torch_build(gpus)
    assert finding.state == state and word in finding.detail


def test_no_driver_means_no_gpu():
    assert doctor.nvidia_gpus("libno_such_driver.so.1") == Gpus()
    assert doctor.gpu(Gpus()).state == NOTE


def native(path, loaded=(None, "it does not load")):
    return SimpleNamespace(find_library=lambda: path, load=lambda: loaded, COMPILERS=("c++",))


def test_cpu_kernel_absent_broken_or_there(monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "native_build", lambda: native(None))
    monkeypatch.setattr(doctor, "find_compiler", lambda: "/usr/bin/c++")
    absent = doctor.cpu_backend()
    assert absent.state == NOTE and absent.remedy.endswith("-m mambaasr.ops.native")
    monkeypatch.setattr(doctor, "find_compiler", lambda: None)
    assert doctor.compiler_hint() in doctor.cpu_backend().remedy
    monkeypatch.setattr(doctor, "native_build", lambda: native(tmp_path / "kernels.so"))
    broken = doctor.cpu_backend()
    assert broken.state == NOTE and broken.detail == "it does not load" and broken.remedy


def test_cpu_kernel_of_this_machine():
    """The real build.py: what doctor says is what the ops find."""
    finding = doctor.cpu_backend()
    path = doctor.native_build().find_library()
    if path is None:
        assert finding.state == NOTE and "not built" in finding.detail
    else:
        assert finding.state == OK and str(path) in finding.detail


def test_instructions_that_this_machine_does_not_know(monkeypatch):
    monkeypatch.setenv("MAMBAASR_ISA", "sse9")
    finding = doctor.cpu_backend()
    assert finding.state == FAIL and "'sse9'" in finding.detail
    assert finding.remedy == "unset MAMBAASR_ISA"


def test_compiler_named_by_cxx(monkeypatch, tmp_path):
    mine = tmp_path / "my-c++"
    mine.write_text("#!/bin/sh\n")
    mine.chmod(0o755)
    monkeypatch.setenv("CXX", f"{mine} -pipe")
    assert doctor.compiler().detail == str(mine)
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    assert doctor.compiler().state == NOTE and doctor.compiler().remedy


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_gpu_backends_say_what_is_missing(monkeypatch, tmp_path, backend):
    monkeypatch.setattr(doctor, "PACKAGE", tmp_path)
    assert "not part of this version" in doctor.gpu_backend(backend, [], A100).detail
    (tmp_path / "ops/selective_scan").mkdir(parents=True)
    (tmp_path / "ops/selective_scan" / f"{backend}.py").touch()
    assert "needs an NVIDIA GPU" in doctor.gpu_backend(backend, [], Gpus()).detail
    monkeypatch.setattr(doctor, "torch_cuda", lambda: None)
    assert doctor.gpu_backend(backend, [], A100).remedy == "make env TORCH=cuda"
    monkeypatch.setattr(doctor, "torch_cuda", lambda: "12.8")
    finding = doctor.gpu_backend(backend, ["no-such-package"], A100)
    assert finding.state == NOTE and "no-such-package" in finding.remedy
    assert doctor.gpu_backend(backend, ["pytest"], A100).state == OK


def test_disk(tmp_path, monkeypatch):
    assert doctor.disk(tmp_path).state == OK
    assert doctor.disk(tmp_path / "missing").state == FAIL
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**8))
    assert "free some space" in doctor.disk(tmp_path).remedy
