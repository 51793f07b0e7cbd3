#!/usr/bin/env bash
# Runs what is missing of a table, row by row, with the run.sh of the table's recipe, and prints it:
#     ../../TEMPLATE/asr1/table.sh tables/x.yaml [--rows a,b] [--scale small] [--keep_going false]
#                                                [--stage N] [--stop_stage M] [options of run.sh]
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/path.sh"
exec python -m mambaasr.bin.table --run "$@"
