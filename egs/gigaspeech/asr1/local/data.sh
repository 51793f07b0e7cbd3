#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that GIGASPEECH names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus gigaspeech --corpus_dir "${GIGASPEECH}" --sets \
    train_xl=XL dev=DEV test=TEST "$@"
