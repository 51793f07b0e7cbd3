#!/usr/bin/env bash
# Stage 1: the data folders, from the folder that LIBRISPEECH names (egs/TEMPLATE/asr1/db.sh).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python -m mambaasr.bin.prepare_corpus librispeech --corpus_dir "${LIBRISPEECH}" --sets \
    train_960=train-clean-100+train-clean-360+train-other-500 dev=dev-clean+dev-other \
    dev_clean=dev-clean dev_other=dev-other test_clean=test-clean test_other=test-other "$@"
