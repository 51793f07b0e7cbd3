#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that MLS names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus mls --corpus_dir "${MLS}" \
    --languages dutch french german italian polish spanish \
    --sets train=train dev=dev test=test "$@"
