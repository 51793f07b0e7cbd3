# shellcheck shell=bash
# Sourced, from any folder: makes sure that `python` is one that has mambaasr.
# The active environment (virtual or conda) where it has it, else the repository's own .venv.

mambaasr_root=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
# find_spec looks the package up without importing it.
has_mambaasr() {
    python -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mambaasr"))' 2> /dev/null
}
if [[ -x ${mambaasr_root}/.venv/bin/python ]] &&
    ! { [[ -n ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]] && has_mambaasr; }; then
    export VIRTUAL_ENV=${mambaasr_root}/.venv PATH=${mambaasr_root}/.venv/bin:${PATH}
fi
if ! has_mambaasr; then
    printf 'error: %s has no mambaasr: run "make env" in %s, or activate the environment that has it\n' \
        "$(command -v python || echo 'python, which is not there,')" "${mambaasr_root}" >&2
    exit 2
fi
# Text files sort by bytes, and messages and numbers look the same everywhere.
export LC_ALL=C.UTF-8 PYTHONIOENCODING=utf-8
