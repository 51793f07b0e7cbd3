#!/usr/bin/env bash
# Style of Python and shell, types, and the documents against the code. Run by `make lint` and the tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Only what git knows or would take: corpora and experiments may hold scripts of others.
listed() { git ls-files -co --exclude-standard -z -- "$@"; }

status=0
listed '*.py' | xargs -0 python -m ruff check --quiet || status=1
listed '*.py' | xargs -0 python -m ruff format --check --quiet || {
    echo "ruff format: files above want 'python -m ruff format .'"
    status=1
}
listed '*.sh' .ci/run | xargs -0 shellcheck -x || status=1
# What to check stands in pyproject.toml.
! grep -q '^\[tool\.mypy\]' pyproject.toml || python -m mypy || status=1
python ci/check_docs.py || status=1
[[ $status -ne 0 ]] || echo "lint: nothing to complain about"
exit "$status"
