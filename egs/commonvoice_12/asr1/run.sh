#!/usr/bin/env bash
# Common Voice in twelve languages and three scripts: one model, one vocabulary. ./run.sh does all;
# ./run.sh --help lists the options. --model language_embedding tells it the language, --model lid
# asks it for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test" \
    --token_type char \
    --asr_config train_asr \
    --inference_config decode_ctc \
    "$@"
