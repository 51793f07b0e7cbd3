#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} of twelve languages, and each language's data/{train,dev}_<code>,
# from the folder that COMMONVOICE names (egs/TEMPLATE/asr1/db.sh): a release of Common Voice, or a
# small set with a manifest.jsonl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
rules=../../TEMPLATE/asr1/text_rules.yaml
if [[ -f ${COMMONVOICE}/manifest.jsonl ]]; then
    if [[ ${1-} == --nj=* ]]; then shift; fi
    exec python local/manifest.py --corpus "${COMMONVOICE}" --text_rules "${rules}" "$@"
fi
languages=(cy de en es fr it nl pl pt ru tr zh-CN)
sets=()
for language in "${languages[@]}"; do
    sets+=("train_${language}=${language}-train" "dev_${language}=${language}-dev")
done
prepare=(python -m mambaasr.bin.prepare_corpus commonvoice --corpus_dir "${COMMONVOICE}")
prepare+=(--text_rules "${rules}")
"${prepare[@]}" --sets "${sets[@]}" "$@"
"${prepare[@]}" --languages "${languages[@]}" --sets train=train dev=dev test=test "$@"
