#!/usr/bin/env bash
# Makes the Python environment: ./.venv with the pinned dependencies and this package (editable).
# Needs Python 3.12 or 3.13 and a package index; no root, no nvcc, no Kaldi.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: tools/setup_env.sh [--dry-run] [--help]

Makes .venv with the dependencies pinned in tools/requirements.lock and installs this package into
it (editable). Does nothing when .venv is current. After an interrupted run it starts afresh.

  --dry-run   print what would be done (one "key: value" a line) and change nothing

Variables, each optional:
  PYTHON=python3.12   interpreter to build .venv with (3.12 or 3.13); default: the first that fits of
                      python3.12, python3.13, python3, python, what pyenv and uv have installed
  TORCH=cpu|cuda      PyTorch's small CPU wheels, or the package index's own build, which carries
                      CUDA; default: cuda where an NVIDIA GPU answers, else cpu. Where PyTorch's
                      wheel index cannot be reached, cpu takes the package index's build as well.
  USE_ACTIVE_ENV=1    install into the active virtual or conda environment instead of .venv; a torch
                      that is there already stays, and the pins then do not apply
HELP
}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lock=$root/tools/requirements.lock
torch_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
# With .venv activated its own python must not be the one that builds it anew.
PATH=:$PATH:
while [[ $PATH == *":$root/.venv/bin:"* ]]; do PATH=${PATH/":$root/.venv/bin:"/:}; done
PATH=${PATH#:}
PATH=${PATH%:}
uv_pin=$(grep -E '^uv==' "$lock" | cut -d ' ' -f 1)

dry_run=false
for argument in "$@"; do
    case $argument in
        --dry-run) dry_run=true ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown argument '$argument'" ;;
    esac
done

# --- what was asked for, and what is there -------------------------------------------------------

if [[ ${USE_ACTIVE_ENV:-0} == 1 ]]; then
    env_dir=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [[ -n $env_dir ]] || die "USE_ACTIVE_ENV=1, but no environment is active (VIRTUAL_ENV and" \
        "CONDA_PREFIX are empty). Activate one, or leave USE_ACTIVE_ENV out."
else
    env_dir=$root/.venv
fi
env_python=$env_dir/bin/python
# The stamp is written last; the mark first, so that only what this script made is ever removed.
stamp=$env_dir/mambaasr-env.stamp
mark=$env_dir/mambaasr-env.made-here

python_version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
is_supported() { [[ $1 == 3.12 || $1 == 3.13 ]]; }
stamped() { [[ ! -f $stamp ]] || sed -n "s/^$1=//p" "$stamp"; }

inputs_sum() { cat "$root/setup.py" "$root/pyproject.toml" "$lock" | cksum | cut -d ' ' -f 1; }

# Only what was asked for by hand counts against what is there: `make test` after
# `TORCH=cuda make env` leaves the CUDA build alone.
choice_fits() {
    [[ -f $stamp && $(stamped root) == "$root" ]] && is_supported "$(stamped python)" &&
        [[ -z ${TORCH:-} || $(stamped torch) == "$TORCH" ]] &&
        [[ -z ${PYTHON:-} || $(stamped python) == "$(python_version "$PYTHON")" ]] &&
        (cd / && "$env_python" -c 'import mambaasr') 2>/dev/null
}

# Interpreters by name and, behind them, those that pyenv or uv installed and nobody activated.
interpreters() {
    if [[ -n ${PYTHON:-} ]]; then
        printf '%s\n' "$PYTHON"
        return
    fi
    printf '%s\n' python3.12 python3.13 python3 python
    printf '%s\n' "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[23].*/bin/python
    if command -v uv >/dev/null; then
        uv python find --no-project --no-python-downloads '>=3.12,<3.14' 2>/dev/null || true
    fi
}

find_python() {
    local candidate version without_venv=
    while read -r candidate; do
        version=$(python_version "$candidate") || continue
        is_supported "$version" || continue
        if command -v uv >/dev/null || "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return
        fi
        without_venv=${without_venv:-$version}
    done < <(interpreters)
    if [[ -n $without_venv ]]; then
        die "Python $without_venv is here, but it cannot make virtual environments (its module" \
            "ensurepip is missing). On Debian and Ubuntu: apt install python$without_venv-venv." \
            "Without root: install uv (a single program) into your PATH, and run this again."
    elif [[ -n ${PYTHON:-} ]]; then
        die "PYTHON=$PYTHON does not run, or is not Python 3.12 or 3.13 (which ESPnet needs)."
    fi
    die "no Python 3.12 or 3.13 was found (ESPnet needs one). Install it, for instance with" \
        "'uv python install 3.12', 'pyenv install 3.12', 'conda create -n mambaasr python=3.12'," \
        "'brew install python@3.12' or 'apt install python3.12 python3.12-venv', or name one:" \
        "PYTHON=/path/to/python3.12 make env"
}

has_nvidia_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; }

# One attempt, four seconds at most, name resolution included.
can_reach() {
    "$python" - "$1" <<'PY'
import os, sys, threading, urllib.request

def ask():
    try:
        urllib.request.urlopen(sys.argv[1].rstrip("/") + "/torch/", timeout=4).close()
    except OSError:
        os._exit(1)
    os._exit(0)

threading.Thread(target=ask, daemon=True).start()
threading.Event().wait(4)
os._exit(1)
PY
}

can_compile() { { command -v "${CXX:-c++}" || command -v g++ || command -v clang++; } >/dev/null 2>&1; }

# --- the plan ------------------------------------------------------------------------------------

[[ ${TORCH:-cpu} == cpu || ${TORCH:-cpu} == cuda ]] || die "TORCH=$TORCH: say cpu or cuda"

inputs=$(inputs_sum)
if choice_fits; then
    action=update
    [[ $(stamped inputs) == "$inputs" ]] && action=nothing
elif [[ ${USE_ACTIVE_ENV:-0} == 1 ]]; then
    action=update
elif [[ ! -e $env_dir ]]; then
    action=create
elif [[ -f $mark ]]; then
    action=recreate
else
    die "$env_dir was not made by this script. Remove it, or activate it and say USE_ACTIVE_ENV=1."
fi

if [[ $action == nothing ]]; then
    say "environment: $env_dir is current"
    exit 0
fi

if [[ $action == update ]]; then
    python=$env_python
    is_supported "$(python_version "$python" || true)" ||
        die "$python is not a working Python 3.12 or 3.13 (which ESPnet needs)."
else
    python=$(find_python)
fi

# A torch of the user's own choice, in an environment of the user's own, is not ours to change.
own_torch=
if [[ ${USE_ACTIVE_ENV:-0} == 1 && ! -f $stamp ]]; then
    own_torch=$("$python" -c 'from importlib.metadata import version; print(version("torch"))' \
        2>/dev/null) || own_torch=
fi

torch=${TORCH:-$(stamped torch)}
if [[ -z $torch ]]; then
    if has_nvidia_gpu; then torch=cuda; else torch=cpu; fi
fi
if [[ -n $own_torch ]]; then
    source="this environment ($own_torch stays)"
elif [[ $torch == cuda ]]; then
    source="the package index"
elif [[ $(uname -s) != Linux ]]; then
    source="the package index"
elif can_reach "$torch_index"; then
    source="PyTorch's CPU wheels"
else
    source="the package index, because PyTorch's CPU wheels cannot be reached: several GB of CUDA libraries come along, unused"
fi
compiler=yes
can_compile || compiler=no

say "environment: $env_dir"
say "action: $action"
say "python: $python ($(python_version "$python"))"
say "torch: $torch, from $source"
if [[ $compiler == yes ]]; then
    say "compiler: found"
else
    say "compiler: none; left out: the fast CPU kernel (pure torch runs instead)"
fi
[[ $dry_run == false ]] || exit 0

# --- doing it ------------------------------------------------------------------------------------

needed_mb=7000
[[ $source != "PyTorch's CPU wheels" && -z $own_torch ]] || needed_mb=2500
free_mb=$(df -Pm "$(dirname "$env_dir")" | awk 'NR == 2 {print $4}')
if [[ $action != update && $free_mb -lt $needed_mb ]]; then
    die "$(dirname "$env_dir") has $free_mb MB free, and the environment needs about $needed_mb MB."
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case $action in
    recreate)
        say "removing the old or unfinished $env_dir"
        # The mark goes last: a kill in between leaves something that is still known as ours.
        find "$env_dir" -mindepth 1 -maxdepth 1 ! -path "$mark" -exec rm -rf {} +
        ;;
    create)
        mkdir -p "$env_dir"
        ;;
esac
if [[ $action != update ]]; then
    : >"$mark"
    if "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv "$env_dir"
    else
        uv venv --quiet --allow-existing --python "$python" "$env_dir"
    fi
fi
rm -f "$stamp"

# uv installs in seconds what takes pip minutes.
if "$env_python" -m uv --version >/dev/null 2>&1; then
    uv=("$env_python" -m uv)
elif "$env_python" -m pip --version >/dev/null 2>&1; then
    "$env_python" -m pip install --quiet --disable-pip-version-check "$uv_pin"
    uv=("$env_python" -m uv)
elif command -v uv >/dev/null; then
    uv=(uv)
else
    die "neither pip nor uv is in $env_dir. Install one of them there (python -m ensurepip)."
fi
install=("${uv[@]}" pip install --python "$env_python")

if [[ -n $own_torch ]]; then
    printf 'torch==%s\n' "$own_torch" >"$scratch/constraints.txt"
else
    cp "$lock" "$scratch/constraints.txt"
fi

if [[ $source == "PyTorch's CPU wheels" ]]; then
    # Alone and without its dependencies: that index also holds old copies of other packages.
    mapfile -t wheels < <(grep -oE '^(torch|torchaudio)==[^ +;]+' "$lock" | sed 's/$/+cpu/')
    "${install[@]}" --no-deps --default-index "$torch_index" "${wheels[@]}"
fi
"${install[@]}" --constraints "$scratch/constraints.txt" --editable "${root}[dev]"

python_now=$(python_version "$env_python")
printf '%s\n' "root=$root" "inputs=$inputs" "torch=$torch" "python=$python_now" >"$scratch/stamp"
mv "$scratch/stamp" "$stamp.new"
mv "$stamp.new" "$stamp"

say "environment: $env_dir, Python $python_now, $(du -sh "$env_dir" | cut -f 1), in $SECONDS s"
say "next: source $env_dir/bin/activate && mambaasr doctor"
