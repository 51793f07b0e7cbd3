"""Builds and loads the library of CPU kernels.

The library is plain C++ with a C interface: it knows nothing of torch or Python, so that it
outlives an upgrade of either. Its name holds a hash of what it was built from, and one of its own
content: a change of the sources builds a new one, a damaged file is never loaded.

Runs without the package too (standard library only): ``python build.py [DIRECTORY]``.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
COMPILERS = ("c++", "g++", "clang++")
FUNCTIONS = (
    *("scan_forward", "scan_backward", "conv_forward", "conv_backward", "sum", "product"),
    *("ctc_scores", "ctc_end", "ctc_best", "ctc_advance"),
)
REMEDY = "install a C++ compiler (g++ or clang++), or name one in the environment variable CXX"
FLAGS = (
    "-std=c++17 -O3 -fPIC -fvisibility=hidden -fno-exceptions -fno-rtti "
    "-fno-math-errno -fno-trapping-math -ffp-contract=fast -w"
).split()
X86 = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": "-mavx2 -mfma -mavx512f -mavx512bw -mavx512dq -mavx512vl".split(),
}


class BuildError(Exception):
    """No compiler could build the library; the message says what each one said."""


def _is_x86():
    return platform.machine().lower() in ("x86_64", "amd64")


def _units():
    """(source, object, flags) of each translation unit."""
    units = [("kernels.cpp", "scalar.o", ["-DISA=scalar"])]
    if _is_x86():
        units += [("kernels.cpp", f"{isa}.o", [f"-DISA={isa}", *X86[isa]]) for isa in X86]
    units.append(("dispatch.cpp", "dispatch.o", ["-DX86_KERNELS"] if _is_x86() else []))
    return units


@functools.cache
def _source_hash():
    digest = hashlib.sha256(platform.machine().encode())
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"), SOURCES / "build.py"]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _content_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def directories() -> list[Path]:
    """Where the library may lie: beside the sources, else in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [SOURCES / "lib", Path(cache) / "mambaasr"]


def find_library() -> Path | None:
    """Return the path of a whole library built from these very sources, or None."""
    for directory in directories():
        for path in sorted(directory.glob(f"libmambaasr-{_source_hash()}-*.so")):
            with contextlib.suppress(OSError):
                if path.stem.endswith(_content_hash(path)):
                    return path
    return None


def _compile(compiler, openmp, folder):
    """Compile all units at once and link them; raise BuildError with the compiler's words."""
    flags = [*FLAGS, *(["-fopenmp"] if openmp else [])]
    commands = [
        [*compiler, *flags, *extra, "-c", str(SOURCES / source), "-o", str(folder / target)]
        for source, target, extra in _units()
    ]
    library = folder / "library.so"
    objects = [str(folder / target) for _, target, _ in _units()]
    link = [*compiler, *flags, "-shared", *objects, "-o", str(library)]
    for stage in (commands, [link]):
        jobs = []
        try:
            for command in stage:
                jobs.append(
                    subprocess.Popen(
                        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                    )
                )
            errors = [(job.communicate()[1], job.returncode) for job in jobs]
        except OSError as error:
            raise BuildError(f"{compiler[0]}: {error.strerror}") from error
        finally:
            for job in jobs:
                job.kill()
                job.wait()
        for said, code in errors:
            if code:
                lines = said.strip().splitlines() or [f"exit status {code}"]
                raise BuildError(f"{shlex.join(compiler)}: {lines[0]}")
    return library


def _writable(directory):
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def build(directory: str | Path | None = None) -> Path:
    """Build the library and return its path.

    Args:
        directory: where to put it; by default the first of :func:`directories` that can be
            written.

    Raises:
        BuildError: no compiler, or none that could build it, or no place to put it.
    """
    places = [Path(directory)] if directory else directories()
    place = next((p for p in places if _writable(p)), None)
    if place is None:
        raise BuildError(f"cannot write to {' or '.join(map(str, places))}")
    if os.environ.get("CXX"):
        compilers = [shlex.split(os.environ["CXX"])]
    else:
        compilers = [[name] for name in COMPILERS]
    compilers = [c for c in compilers if shutil.which(c[0])]
    if not compilers:
        wanted = os.environ.get("CXX") or ", ".join(COMPILERS)
        raise BuildError(f"no C++ compiler found (looked for {wanted}); {REMEDY}")
    failures = []
    for compiler in compilers:
        for openmp in (True, False):
            with tempfile.TemporaryDirectory(dir=place) as folder:
                try:
                    library = _compile(compiler, openmp, Path(folder))
                except BuildError as error:
                    failures.append(str(error))
                    continue
                name = f"libmambaasr-{_source_hash()}-{_content_hash(library)}.so"
                os.replace(library, place / name)
                return place / name
    raise BuildError(f"no compiler could build the CPU kernels: {'; '.join(failures)}")


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str | None]:
    """Return (library, None), or (None, the reason why there is none).

    Builds it where none is found, which takes seconds, once.

    Raises:
        ValueError: ``MAMBAASR_ISA`` names instructions that this machine cannot run.
    """
    try:
        path = find_library() or build()
    except BuildError as error:
        return None, str(error)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path} cannot be loaded ({error}); remove it, then {REMEDY}"
    for op in FUNCTIONS:
        function = getattr(library, f"mambaasr_{op}")
        function.argtypes, function.restype = [ctypes.c_char_p], ctypes.c_int
    library.mambaasr_isa.restype = ctypes.c_char_p
    wanted = os.environ.get("MAMBAASR_ISA", "")
    if library.mambaasr_init(wanted.encode()):
        raise ValueError(
            f"MAMBAASR_ISA is '{wanted}', which this machine cannot run; "
            "choose avx512, avx2 or scalar, or leave it unset"
        )
    return library, None


if __name__ == "__main__":
    print(build(*sys.argv[1:2]))
