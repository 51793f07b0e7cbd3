"""What is installed, what works on this machine, and the command that mends what does not.

Everything is found out without importing torch, so that the answer takes no time and comes even
where torch itself is what is broken.
"""

import ctypes
import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import mambaasr

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PACKAGE = Path(mambaasr.__file__).parent
ROOT = PACKAGE.parent
OK, NOTE, FAIL = "ok", "note", "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the answer.

    Attributes:
        state: "ok"; "note": something optional is absent; "FAIL": the basics do not work.
        name: what was looked at.
        detail: what was found.
        remedy: the command (or the sentence) that mends it; empty where nothing needs mending.
    """

    state: str
    name: str
    detail: str
    remedy: str = ""


def examine(folder: str | Path = ".") -> list[Finding]:
    """Return every finding; ``folder`` is where experiments would be written."""
    gpus = nvidia_gpus()
    return [
        python_version(),
        *packages(),
        torch_build(gpus),
        compiler(),
        gpu(gpus),
        *backends(gpus),
        disk(folder),
    ]


def installed(name: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def install_command(*requirements: str, isolated: bool = True) -> str:
    """Return the command that installs requirements beside this very interpreter."""
    command = [sys.executable, "-m", "pip", "install"]
    if installed("uv"):
        command = [*command[:2], "uv", "pip", "install", "--python", sys.executable]
    command += [] if isolated else ["--no-build-isolation"]
    # The pins are of environments that tools/setup_env.sh made; others have a torch of their own.
    lock, stamp = ROOT / "tools/requirements.lock", Path(sys.prefix, "mambaasr-env.stamp")
    command += ["--constraint", str(lock)] if lock.exists() and stamp.exists() and isolated else []
    return shlex.join([*command, *requirements])


def requirements(extra: str | None = None) -> "list[Requirement]":
    """Return this package's requirements that hold here: the plain ones, or those of an extra."""
    from packaging.requirements import Requirement

    found = []
    for line in metadata.requires("mambaasr") or []:
        requirement = Requirement(line)
        marker = requirement.marker
        plain = marker is None or marker.evaluate({"extra": ""})
        if plain if extra is None else not plain and marker.evaluate({"extra": extra}):
            found.append(requirement)
    return found


def plain(requirement: "Requirement") -> str:
    """Return ``name>=1`` without the marker that says which extra asks for it."""
    return f"{requirement.name}{requirement.specifier}"


def unmet(wanted: "Iterable[Requirement]") -> "list[tuple[Requirement, str | None]]":
    """Return what is missing or of a wrong version, as (requirement, installed or None)."""
    found = [(requirement, installed(requirement.name)) for requirement in wanted]
    return [
        (requirement, version)
        for requirement, version in found
        if version is None or not requirement.specifier.contains(version, prereleases=True)
    ]


def python_version() -> Finding:
    """Python itself: what ESPnet runs on."""
    detail = f"{platform.python_version()} at {sys.executable}"
    if (3, 12) <= sys.version_info[:2] <= (3, 13):
        return Finding(OK, "python", detail)
    detail += "; 3.12 or 3.13 is needed"
    return Finding(FAIL, "python", detail, "PYTHON=python3.12 make env")


def packages() -> Iterator[Finding]:
    """Yield findings on this package, what it requires, and what the tests require."""
    version = installed("mambaasr")
    if version is None:
        make = f"make -C {shlex.quote(str(ROOT))} env" if (ROOT / "Makefile").exists() else ""
        yield Finding(
            FAIL,
            "mambaasr",
            f"{mambaasr.__version__} at {PACKAGE}, not installed for this Python",
            make or install_command("mambaasr"),
        )
        return
    yield Finding(OK, "mambaasr", f"{version} at {PACKAGE}")
    wanted = requirements()
    lacking = unmet(wanted)
    for requirement, have in lacking:
        yield Finding(
            FAIL,
            requirement.name,
            f"{have} does not fit {requirement.specifier}" if have else "not installed",
            install_command(plain(requirement)),
        )
    if not lacking:
        names = ("torch", "espnet", "numpy")
        shown = ", ".join(f"{name} {installed(name)}" for name in names)
        yield Finding(OK, "packages", f"all {len(wanted)} required ones, with {shown}")
    lacking = [plain(requirement) for requirement, _ in unmet(requirements("dev"))]
    if "lhotse" in lacking:
        detail = "not installed; most recipes prepare their corpus with it, AN4 does not"
        yield Finding(NOTE, "lhotse", detail, install_command("lhotse"))
        lacking.remove("lhotse")
    if lacking:
        detail = f"only for developers, not installed: {', '.join(lacking)}"
        yield Finding(NOTE, "tests, lint", detail, install_command(*lacking))


def torch_cuda() -> str | None:
    """Return the CUDA version that the installed torch was built for, or None for none.

    Read from the text of torch/version.py; importing torch takes seconds.
    """
    try:
        text = metadata.distribution("torch").locate_file("torch/version.py").read_text("utf-8")
    except (metadata.PackageNotFoundError, OSError):
        return None
    found = re.search(r"^cuda\b[^=]*=\s*'([\d.]+)'", text, re.MULTILINE)
    return found.group(1) if found else None


def torch_build(gpus: "Gpus") -> Finding:
    """Which torch it is, and whether that fits the GPU and its driver."""
    version, cuda = installed("torch"), torch_cuda()
    if version is None:
        return Finding(FAIL, "torch", "not installed", install_command("torch"))
    detail = f"{version}, built for {f'CUDA {cuda}' if cuda else 'the CPU'}"
    if gpus.names and not cuda:
        return Finding(NOTE, "torch", f"{detail}, so the GPU lies idle", "make env TORCH=cuda")
    if gpus.names and tuple(map(int, cuda.split("."))) > gpus.cuda:
        newest = ".".join(map(str, gpus.cuda))
        detail += f", newer than this machine's NVIDIA driver knows (CUDA {newest})"
        return Finding(NOTE, "torch", detail, "update the driver, or install a torch for that CUDA")
    return Finding(OK, "torch", detail)


@dataclass(frozen=True)
class Gpus:
    """What the NVIDIA driver sees: GPU names, and the newest CUDA (major, minor) it knows."""

    names: tuple[str, ...] = ()
    cuda: tuple[int, int] = (0, 0)


def nvidia_gpus(library: str = "libcuda.so.1") -> Gpus:
    """Ask NVIDIA's driver library for its GPUs; CUDA_VISIBLE_DEVICES counts, as for torch."""
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return Gpus()
    if driver.cuInit(0) != 0:
        return Gpus()
    count, version = ctypes.c_int(), ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    driver.cuDeviceGetCount(ctypes.byref(count))
    names = []
    for index in range(count.value):
        name = ctypes.create_string_buffer(256)
        driver.cuDeviceGetName(name, len(name), index)
        names.append(name.value.decode("utf-8", "replace"))
    return Gpus(tuple(names), (version.value // 1000, version.value % 1000 // 10))


def gpu(gpus: Gpus) -> Finding:
    """The GPUs that torch could use."""
    if not gpus.names:
        return Finding(NOTE, "gpu", "no NVIDIA GPU answers; everything runs on the CPU")
    return Finding(OK, "gpu", f"{len(gpus.names)}: {', '.join(gpus.names)}")


def compiler_hint() -> str:
    """Return the command that brings a C++ compiler and Python's headers."""
    if sys.platform == "darwin":
        return "xcode-select --install"
    if shutil.which("apt-get"):
        return f"sudo apt-get install g++ python{sys.version_info[0]}.{sys.version_info[1]}-dev"
    if shutil.which("dnf"):
        return "sudo dnf install gcc-c++ python3-devel"
    return "conda install -c conda-forge cxx-compiler"


def native_build() -> ModuleType:
    """Load ops/native/build.py by path: importing its package would import torch."""
    spec = importlib.util.spec_from_file_location(
        "mambaasr_native_build", PACKAGE / "ops/native/build.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find_compiler() -> str | None:
    """Return the path of the C++ compiler that would build the CPU kernel, or None."""
    named = shlex.split(os.environ.get("CXX", ""))[:1]
    return next(filter(None, map(shutil.which, named or native_build().COMPILERS)), None)


def compiler() -> Finding:
    """The C++ compiler, which only building the CPU kernel needs."""
    found = find_compiler()
    if found:
        return Finding(OK, "compiler", found)
    return Finding(NOTE, "compiler", "no C++ compiler", compiler_hint())


def backends(gpus: Gpus) -> Iterator[Finding]:
    """Yield a finding for each backend of the ops."""
    runs = installed("torch") is not None
    yield Finding(
        OK if runs else FAIL,
        "backend naive",
        "pure torch, on any device" if runs else "torch is not installed",
        "" if runs else install_command("torch"),
    )
    yield cpu_backend()
    yield gpu_backend("triton", ["triton"], gpus)
    yield gpu_backend("cuda", [requirement.name for requirement in cuda_extra()], gpus)


def cuda_extra() -> "list[Requirement]":
    """Return the requirements of the extra ``cuda`` (none where the package is not installed)."""
    return requirements("cuda") if installed("mambaasr") else []


def cpu_backend() -> Finding:
    """The compiled CPU kernel: found, loads, and runs on this processor."""
    name, native = "backend cpu", native_build()
    build = shlex.join([sys.executable, "-m", "mambaasr.ops.native"])
    path = native.find_library()
    if path is None:
        if find_compiler():
            return Finding(NOTE, name, "not built yet; the first use builds it", build)
        detail = "not built; pure torch runs instead, slower"
        return Finding(NOTE, name, detail, f"{compiler_hint()} && {build}")
    try:
        library, reason = native.load()
    except ValueError as error:
        return Finding(FAIL, name, str(error), "unset MAMBAASR_ISA")
    if library is None:
        return Finding(NOTE, name, reason, build)
    return Finding(OK, name, f"{library.mambaasr_isa().decode()}, {path}")


def gpu_backend(backend: str, names: list[str], gpus: Gpus) -> Finding:
    """A backend that needs a GPU and the packages ``names``."""
    name = f"backend {backend}"
    if not list(PACKAGE.glob(f"ops/*/{backend}.py")):
        return Finding(NOTE, name, "not part of this version of mambaasr")
    if not gpus.names:
        return Finding(NOTE, name, "needs an NVIDIA GPU; none answers here")
    if not torch_cuda():
        return Finding(NOTE, name, "needs a torch built for CUDA", "make env TORCH=cuda")
    lacking = [each for each in names if not installed(each)]
    if lacking:
        wanted = [plain(each) for each in cuda_extra() if each.name in lacking] or lacking
        remedy = install_command(*wanted, isolated=backend != "cuda")
        return Finding(NOTE, name, f"not installed: {', '.join(lacking)}", remedy)
    return Finding(OK, name, ", ".join(f"{each} {installed(each)}" for each in names) or "ready")


def disk(folder: str | Path) -> Finding:
    """Free space where experiments are written."""
    where = Path(folder).resolve()
    try:
        free = shutil.disk_usage(where).free / 1e9
    except OSError as error:
        return Finding(FAIL, "disk", f"{where}: {error.strerror}", "name an existing folder")
    detail = f"{free:.0f} GB free in {where}"
    if not os.access(where, os.W_OK):
        return Finding(NOTE, "disk", f"{where} cannot be written", "work in a folder of your own")
    if free < 2:
        return Finding(NOTE, "disk", detail, "free some space: the demo writes about 1 GB")
    return Finding(OK, "disk", detail)


def report(findings: list[Finding]) -> str:
    """Return the findings as text, one a line, each remedy on a line of its own below it."""
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:4}  {finding.name:{width}}  {finding.detail}")
        if finding.remedy:
            lines.append(f"{'':4}  {'':{width}}  -> {finding.remedy}")
    return "\n".join(lines)
