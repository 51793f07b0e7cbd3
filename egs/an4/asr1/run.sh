#!/usr/bin/env bash
# CMU AN4: spelled words, numbers and names. ./run.sh does all; ./run.sh --help lists the options.
# The baseline: ./run.sh --encoder conformer --decoder transformer
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train_nodev \
    --valid_set train_dev \
    --test_sets "train_dev test" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --token_type char \
    --asr_config train_asr \
    --inference_config decode_asr \
    "$@"
