#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that AISHELL names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus aishell --corpus_dir "${AISHELL}" --sets \
    train=train dev=dev test=test "$@"
