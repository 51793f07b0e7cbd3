"""Where a result comes from: command, commit, environment, date."""

import datetime
import functools
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path


@functools.lru_cache
def git_commit():
    """Return the commit of this package's source, with " (dirty)" where tracked files differ.

    None where the package does not lie in a git working tree of its own.
    """
    folder = Path(__file__).resolve().parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout.strip()

    try:
        # An installed copy may lie inside somebody else's repository.
        git("ls-files", "--error-unmatch", "__init__.py")
        commit = git("rev-parse", "--short=12", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} (dirty)" if dirty else commit


def environment():
    """Return what the numbers may depend on: versions, processor, GPU; a dict of strings."""
    found = {"python": platform.python_version()}
    for package in ("mambaasr", "torch", "espnet"):
        found[package] = version(package)
    found["cpu"] = cpu_model()
    return found


def version(package):
    """Return the version of a package without importing it, or "not installed"."""
    if package == "mambaasr":
        from mambaasr import __version__

        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_model():
    """Return the processor's name and the number of its cores."""
    from mambaasr.parallel import usable_cores

    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.lower().startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:  # no such file but on Linux
        return name
    return f"{name}, {usable_cores()} cores"


def command():
    """Return the running command as it could be typed."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name != "__main__":
        name = spec.name.removesuffix(".__main__")
        return shlex.join(["python", "-m", name, *sys.argv[1:]])
    return shlex.join(sys.argv)


def now():
    """Return the local date and time with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
