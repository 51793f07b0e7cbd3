#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} of --languages, from the folder that COMMONVOICE names
# (egs/TEMPLATE/asr1/db.sh): a release, with a folder a language.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus commonvoice --corpus_dir "${COMMONVOICE}" \
    --text_rules ../../TEMPLATE/asr1/text_rules.yaml --languages es \
    --sets train=train dev=dev test=test "$@"
