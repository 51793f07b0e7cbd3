#!/usr/bin/env bash
# From a corpus to its error rates, with ESPnet2's stages and options. A recipe's run.sh calls it in
# the recipe's folder; --help lists the options. The driver itself is Python: mambaasr/recipe.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=path.sh
. "${here}/path.sh"
# Where the corpora lie, for local/data.sh; a recipe may have a db.sh of its own.
set -a
# shellcheck source=/dev/null
[[ ! -f db.sh ]] || . ./db.sh
# shellcheck source-path=SCRIPTDIR source=db.sh
. "${here}/db.sh"
set +a

exec python -m mambaasr.recipe "${here}" "$@"
