#!/usr/bin/env bash
# Stage 1: the data folders, from the folders that LIBRISPEECH, GIGASPEECH and SPGISPEECH name
# (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
prepare() { python -m mambaasr.bin.prepare_corpus "$@"; }
# Behind the sets come the driver's options.
prepare librispeech --corpus_dir "${LIBRISPEECH}" --sets \
    train_ls=train-clean-100+train-clean-360 dev_ls=dev-clean+dev-other \
    test_clean_ls=test-clean test_other_ls=test-other "$@"
prepare gigaspeech --corpus_dir "${GIGASPEECH}" --sets train_giga=XL test_giga=TEST "$@"
prepare spgispeech --corpus_dir "${SPGISPEECH}" --sets train_spgi=train test_spgi=val "$@"
python local/join.py "$@"
