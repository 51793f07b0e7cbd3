#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that MLS names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
sets=()
for split in train dev test; do
    parts=
    for language in dutch french german italian polish spanish; do parts+="+${language}-${split}"; done
    sets+=("${split}=${parts#+}")
done
python -m mambaasr.bin.prepare_corpus mls --corpus_dir "${MLS}" --sets "${sets[@]}" "$@"
