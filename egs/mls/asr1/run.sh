#!/usr/bin/env bash
# Six languages of MLS in one model with one vocabulary, MLMA's part of read books.
# ./run.sh does all; ./run.sh --help lists the options. The blocks in ../../TEMPLATE/asr1/conf swap
# any part: --model language_embedding tells it the language, --model lid asks it for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --max_wav_duration 30 \
    --token_type char \
    --asr_config train_mlma \
    --encoder mlma_18 \
    --optim slytherin_ctc \
    --inference_config decode_ctc \
    "$@"
