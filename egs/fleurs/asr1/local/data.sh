#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} of --languages, from the folder that FLEURS names
# (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus fleurs --corpus_dir "${FLEURS}" \
    --text_rules ../../TEMPLATE/asr1/text_rules.yaml --languages all \
    --sets train=train dev=dev test=test "$@"
