#!/usr/bin/env bash
# Makes the Python environment: ./.venv with the pinned dependencies and this package (editable).
# Needs uv, or any Python with pip, and a package index; no root, no nvcc, no Kaldi.
set -euo pipefail

usage() {
    cat <<'HELP'
Usage: tools/setup_env.sh [--dry-run] [--help]

Makes .venv with the dependencies pinned in tools/requirements.lock and installs this package into
it (editable), by uv, which pip fetches where there is none. Does nothing when .venv is current.
After an interrupted run it starts afresh.

  --dry-run   print what would be done (one "key: value" a line) and change nothing

Variables, each optional, beside those of uv (UV_DEFAULT_INDEX for a mirror) and pip:
  PYTHON=3.12         version, name or path of the interpreter to build .venv with (3.12 or 3.13);
                      default: what uv finds, or else fetches
  TORCH=cpu|cuda      PyTorch's small CPU wheels, or the package index's own build, which carries
                      CUDA; default: cuda where an NVIDIA GPU answers, else cpu. Where PyTorch's
                      wheel index cannot be reached, cpu takes the package index's build as well.
  TORCH_CPU_INDEX=URL a mirror of https://download.pytorch.org/whl/cpu
  USE_ACTIVE_ENV=1    install into the active virtual or conda environment instead of .venv; a torch
                      that is there already stays, and the pins then do not apply
HELP
}

say() { printf '%s\n' "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 2; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
lock=$root/tools/requirements.lock
torch_index=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}
dry_run=false
for argument in "$@"; do
    case $argument in
        --dry-run) dry_run=true ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; die "unknown argument '$argument'" ;;
    esac
done
[[ ${TORCH:-cpu} =~ ^(cpu|cuda)$ ]] || die "TORCH=$TORCH: say cpu or cuda"
env_dir=$root/.venv
if [[ ${USE_ACTIVE_ENV:-0} == 1 ]]; then
    env_dir=${VIRTUAL_ENV:-${CONDA_PREFIX:-}}
    [[ -n $env_dir ]] || die "USE_ACTIVE_ENV=1, but no environment is active (VIRTUAL_ENV and" \
        "CONDA_PREFIX are empty). Activate one, or leave USE_ACTIVE_ENV out."
fi
env_python=$env_dir/bin/python
stamp=$env_dir/mambaasr-env.stamp # written last, so that an unfinished environment has none

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }
stamped() { [[ ! -f $stamp ]] || sed -n "s/^$1=//p" "$stamp"; }

# Only what was asked for by hand counts against what is there: `make test` after
# `TORCH=cuda make env` leaves the CUDA build alone.
fits() {
    local version
    version=$(stamped python)
    [[ $(stamped root) == "$root" && $version =~ ^3\.1[23]$ ]] &&
        [[ ${TORCH:-$(stamped torch)} == "$(stamped torch)" ]] &&
        [[ ${PYTHON:-$version} == "$version" || $(version_of "$PYTHON") == "$version" ]] &&
        (cd / && "$env_python" -c 'import mambaasr') 2>/dev/null
}

inputs=$(cat "$root/setup.py" "$root/pyproject.toml" "$lock" | cksum | cut -d ' ' -f 1)
if fits; then
    action=update
    [[ $(stamped inputs) != "$inputs" ]] || { say "environment: $env_dir is current"; exit 0; }
elif [[ ${USE_ACTIVE_ENV:-0} == 1 ]]; then
    action=update
    [[ $(version_of "$env_python") =~ ^3\.1[23]$ ]] ||
        die "$env_python is not a working Python 3.12 or 3.13 (which ESPnet needs)."
elif [[ ! -e $env_dir ]]; then
    action=create
elif [[ -f $env_dir/mambaasr-env.made-here ]] ||
    grep -qs '^prompt = mambaasr$' "$env_dir/pyvenv.cfg"; then
    action=recreate
else
    die "$env_dir was not made by this script. Remove it, or activate it and say USE_ACTIVE_ENV=1."
fi

torch=${TORCH:-$(stamped torch)}
if [[ -z $torch ]]; then
    torch=cpu
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
        torch=cuda
    fi
fi
# A torch of the user's own choice, in an environment of the user's own, is not ours to change.
own_torch=
if [[ ${USE_ACTIVE_ENV:-0} == 1 && ! -f $stamp ]]; then
    own_torch=$("$env_python" -c 'from importlib.metadata import version; print(version("torch"))' \
        2>/dev/null || true)
fi
say "environment: $env_dir"
say "action: $action"
say "torch: ${own_torch:-$torch}${own_torch:+ stays}"
[[ $dry_run == false ]] || exit 0

need_mb() {
    local free_mb
    free_mb=$(df -Pm "$(dirname "$env_dir")" | awk 'NR == 2 {print $4}')
    [[ $action == update || $free_mb -ge $1 ]] || die "$(dirname "$env_dir") has $free_mb MB free," \
        "and the environment needs about $1 MB${2:-}."
}
# Measured: 5.6 GB with the CUDA libraries.
[[ $torch == cuda && -z $own_torch ]] && need_mb 7000 " with CUDA (2500 MB with TORCH=cpu)"
need_mb 2500

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
pin=$(grep -E '^uv==' "$lock" | cut -d ' ' -f 1)
uv=$(PATH=$env_dir/bin:$PATH type -P uv || true)
if ! "${uv:-false}" --version >/dev/null 2>&1; then
    # The environment's own Python has no pip, and the Makefile puts it first.
    for python in "${PYTHON:-python3}" python3 python3.12 python3.13 python; do
        PATH=${PATH//$env_dir\/bin:/} "$python" -m pip install --quiet --disable-pip-version-check --target "$scratch/uv" "$pin" \
            2>"$scratch/said" && break
    done
    uv=$scratch/uv/bin/uv
    [[ -x $uv ]] || die "there is no uv, and no Python with pip could fetch it" \
        "($(tail -n 1 "$scratch/said")). Install uv into your PATH (a single program:" \
        "https://docs.astral.sh/uv), or pip ('apt install python3-pip', conda, pyenv)."
elif [[ $uv == "$env_dir"/* && $action == recreate ]]; then
    cp "$uv" "$scratch/uv" # that which it is about to remove
    uv=$scratch/uv
fi

if [[ $action != update ]]; then
    # What pyenv installed and nobody activated; a shim in the PATH may refuse to run.
    for folder in "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[23].*/bin; do PATH+=:$folder; done
    # --system: an activated .venv must not be what it is itself built anew from.
    find=("$uv" python find --system --no-project)
    python=$("${find[@]}" "${PYTHON:-3.12}" 2>/dev/null || "${find[@]}" "${PYTHON:-3.13}" \
        2>/dev/null || true)
    [[ -z ${PYTHON:-} || -z $python || $(version_of "$python") =~ ^3\.1[23]$ ]] ||
        die "PYTHON=$PYTHON is not Python 3.12 or 3.13 (which ESPnet needs)."
    "$uv" venv --quiet --no-project --clear --prompt mambaasr \
        --python "${python:-${PYTHON:-3.12}}" "$env_dir" ||
        die "no Python 3.12 or 3.13 was found or could be fetched (ESPnet needs one). Install it," \
            "for instance with 'pyenv install 3.12' or 'conda create -n mambaasr python=3.12', or" \
            "name one: PYTHON=/path/to/python3.12 make env"
fi
rm -f "$stamp"

install=("$uv" pip install --python "$env_python")
if [[ -n $own_torch ]]; then
    printf 'torch==%s\n' "$own_torch" >"$scratch/constraints.txt"
else
    cp "$lock" "$scratch/constraints.txt"
    if [[ $torch == cpu && $(uname -s) == Linux ]]; then
        # Alone and without its dependencies: that index also holds old copies of other packages.
        mapfile -t wheels < <(grep -oE '^(torch|torchaudio)==[^ +;]+' "$lock" | sed 's/$/+cpu/')
        wheels=(--no-deps --default-index "$torch_index" "${wheels[@]}")
        if UV_HTTP_TIMEOUT=8 UV_HTTP_RETRIES=0 "${install[@]}" --quiet --dry-run "${wheels[@]}" \
            2>/dev/null; then
            "${install[@]}" "${wheels[@]}"
        else
            say "PyTorch's CPU wheels cannot be reached: several GB of CUDA libraries come along"
            need_mb 7000 " with CUDA libraries"
        fi
    fi
fi
"${install[@]}" --constraints "$scratch/constraints.txt" --editable "${root}[dev]"

python=$(version_of "$env_python")
printf '%s\n' "root=$root" "inputs=$inputs" "torch=$torch" "python=$python" >"$stamp.new"
mv "$stamp.new" "$stamp"
say "environment: $env_dir, Python $python, $(du -sh "$env_dir" | cut -f 1), in $SECONDS s"
say "next: source $env_dir/bin/activate && mambaasr doctor"
