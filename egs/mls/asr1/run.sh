#!/usr/bin/env bash
# Six languages of MLS in one model with one vocabulary, as MLMA has six European languages.
# ./run.sh does all; ./run.sh --help lists the options. The blocks in ../../TEMPLATE/asr1/conf swap
# any part: --model language_embedding tells it the language, --model lid asks it for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
blocks=../../TEMPLATE/asr1/conf

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --max_wav_duration 30 \
    --token_type char \
    --asr_config "${blocks}/train_mlma.yaml" \
    --encoder "${blocks}/encoder/mlma_18.yaml" \
    --optim "${blocks}/optim/slytherin_ctc.yaml" \
    --inference_config "${blocks}/decode_ctc.yaml" \
    "$@"
