#!/usr/bin/env bash
# Mini LibriSpeech: five hours of read books for training, LibriSpeech's test-clean for testing.
# ./run.sh does all; ./run.sh --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test_clean" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --token_type bpe --nbpe 300 \
    --asr_config train_asr \
    --inference_config decode_asr \
    "$@"
