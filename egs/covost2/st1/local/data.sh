#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} of --pair, from the folder that COVOST2 names
# (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python local/data.py --corpus "${COVOST2}" --text_rules ../../TEMPLATE/asr1/text_rules.yaml "$@"
