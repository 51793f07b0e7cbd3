#!/usr/bin/env bash
# Stage 1: data/{train,dev,mls,commonvoice,voxpopuli}, from the folders that MLS, COMMONVOICE and
# VOXPOPULI name (egs/TEMPLATE/asr1/db.sh). The last three are the test sets.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
# corpus, its folder, its names of the six languages; behind them come the driver's options.
prepare() {
    local corpus=$1 folder=$2 languages=$3
    shift 3
    # shellcheck disable=SC2086  # a list of words
    python -m mambaasr.bin.prepare_corpus "${corpus}" --corpus_dir "${folder}" \
        --text_rules ../../TEMPLATE/asr1/text_rules.yaml --languages ${languages} \
        --sets "train_${corpus}=train" "dev_${corpus}=dev" "${corpus}=test" "$@"
}
codes="nl fr de it pl es"
prepare mls "${MLS}" "dutch french german italian polish spanish" "$@"
prepare commonvoice "${COMMONVOICE}" "${codes}" "$@"
prepare voxpopuli "${VOXPOPULI}" "${codes}" "$@"
python local/join.py "$@"
