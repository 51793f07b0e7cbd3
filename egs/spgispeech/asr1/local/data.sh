#!/usr/bin/env bash
# Stage 1: data/{train,dev,val}, from the folder that SPGISPEECH names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python local/data.py --corpus "${SPGISPEECH}" "$@"
