#!/usr/bin/env bash
# Spoken numbers, dates and commands: synthetic speech that stage 1 makes from nothing.
# ./run.sh does all on the CPU in minutes; ./run.sh --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "test_en" \
    --token_type char \
    --non_speech_ratio 0.03 \
    --asr_config train_asr \
    --inference_config decode_asr \
    "$@"
