"""Where a result comes from: command, commit, environment, date."""

import datetime
import functools
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# Beside a training or statistics: a list with an entry for each start, the oldest first.
FILE = "provenance.json"
# Variables of the environment that belong to a command: numbers depend on them.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MAMBAASR_BACKEND",
    "MAMBAASR_ISA",
    "OMP_NUM_THREADS",
    "TRITON_INTERPRET",
)
DIRTY = " (dirty)"


@functools.lru_cache
def git_commit() -> str | None:
    """Return the commit of this package's source, with " (dirty)" where tracked files differ.

    None where the package does not lie in a git working tree of its own.
    """
    folder = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
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
    return f"{commit}{DIRTY}" if dirty else commit


def environment() -> dict[str, str]:
    """Return what the numbers may depend on: versions, processor, GPU; a dict of strings."""
    found = {"python": platform.python_version()}
    for package in ("mambaasr", "torch", "espnet"):
        found[package] = version(package)
    found["cpu"] = cpu_model()
    return found


def version(package: str) -> str:
    """Return the version of a package without importing it, or "not installed"."""
    if package == "mambaasr":
        from mambaasr import __version__

        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def cpu_model() -> str:
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


def command() -> str:
    """Return the running command as it could be typed, with its launcher and variables.

    Of a run on several nodes it is the command of each, without the rendezvous.
    """
    words = sys.argv
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if spec is not None and spec.name != "__main__":
        words = ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
        words = ["python", *_launcher(), *words]
    variables = [f"{name}={os.environ[name]}" for name in VARIABLES if os.environ.get(name)]
    return shlex.join([*variables, *words])


def _launcher() -> list[str]:
    """Return torchrun's part of the command, or nothing where it did not start this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return []
    nodes, here = os.environ.get("GROUP_WORLD_SIZE", "1"), os.environ.get("LOCAL_WORLD_SIZE", "1")
    where = ["--standalone"] if nodes == "1" else ["--nnodes", nodes]
    return ["-m", "torch.distributed.run", *where, "--nproc_per_node", here]


def device(ngpu: int) -> str:
    """Return the name of the GPU and how many work together, or that of the processor."""
    if not ngpu:
        return cpu_model()
    import torch

    count = ngpu
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        count = torch.distributed.get_world_size()
    name = torch.cuda.get_device_name()
    return name if count == 1 else f"{count} x {name}"


def record_start(
    folder: str | Path,
    seed: int,
    ngpu: int,
    epoch: int | None = None,
    statistics: str | Path | None = None,
    seconds: dict[str, float] | None = None,
) -> dict:
    """Record the command, code and environment that a training or its statistics start with.

    Args:
        folder: of the experiment or of the statistics; :data:`FILE` is written there.
        seed: of the random numbers.
        ngpu: GPUs of this process; 0 for the CPU.
        epoch: the first that is trained now. Above 1 the training is resumed, and the entries
            of its earlier starts stay; otherwise an old file describes something else.
        statistics: folder of the statistics that a training reads, whose start is noted, too.
        seconds: how long the training's utterances are (:mod:`mambaasr.data.lengths`).

    Returns:
        the entry: a dict of ``command``, ``folder`` (where it was typed), ``commit`` (None
        outside a clone), ``clean`` (whether tracked files were as committed), ``environment``,
        ``device``, ``seed``, ``date`` and, of a training, ``epoch`` and ``statistics`` (an entry
        like this one, or None) and ``seconds``.

    Raises:
        UserError: the file cannot be written or, for a resumed training, read.
    """
    commit = git_commit()
    entry = {
        "command": command(),
        "folder": os.getcwd(),
        "commit": commit and commit.removesuffix(DIRTY),
        "clean": commit and not commit.endswith(DIRTY),
        "environment": environment(),
        "device": device(ngpu),
        "seed": seed,
        "date": now(),
    }
    if epoch is not None:
        entry["epoch"] = epoch
        entry["statistics"] = next(iter(starts(statistics)[-1:]), None) if statistics else None
        entry["seconds"] = seconds
    earlier = starts(folder) if epoch not in (None, 1) else []
    with atomic_write(Path(folder) / FILE) as stream:
        json.dump([*earlier, entry], stream, indent=1, ensure_ascii=False)
        stream.write("\n")
    return entry


def starts(folder: str | Path) -> list[dict]:
    """Return what :func:`record_start` wrote in a folder, the oldest first; [] where nothing is.

    Raises:
        UserError: the file cannot be read.
    """
    path = Path(folder) / FILE
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; move it away to continue") from error


def commits(folder: str | Path) -> list[str]:
    """Return the commits of the starts of a training; "unknown" for those that left no entry."""
    try:
        found = starts(folder)
    except UserError:
        found = []
    lost = not found or found[0].get("epoch", 1) > 1
    return (["unknown"] if lost else []) + [commit_of(entry) for entry in found]


def commit_of(entry: dict) -> str:
    """Return an entry's commit as :func:`git_commit` writes it, or "unknown"."""
    return f"{entry['commit'] or 'unknown'}{'' if entry['clean'] in (True, None) else DIRTY}"


def versions(environment: dict[str, str]) -> str:
    """Return the versions of an :func:`environment` in one line."""
    return ", ".join(f"{name} {value}" for name, value in environment.items() if name != "cpu")


def now() -> str:
    """Return the local date and time with its zone."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
