#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} of twelve languages, from the folder that COMMONVOICE names
# (egs/TEMPLATE/asr1/db.sh): a release of Common Voice, or a small set with a manifest.jsonl.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
rules=../../TEMPLATE/asr1/text_rules.yaml
if [[ -f ${COMMONVOICE}/manifest.jsonl ]]; then
    if [[ ${1-} == --nj=* ]]; then shift; fi
    exec python local/manifest.py --corpus "${COMMONVOICE}" --text_rules "${rules}" "$@"
fi
python -m mambaasr.bin.prepare_corpus commonvoice --corpus_dir "${COMMONVOICE}" \
    --text_rules "${rules}" --languages cy de en es fr it nl pl pt ru tr zh-CN \
    --sets train=train dev=dev test=test "$@"
