#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that CSJ names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus csj --corpus_dir "${CSJ}" --sets \
    train=noncore dev=core eval1=eval1 eval2=eval2 eval3=eval3 "$@"
