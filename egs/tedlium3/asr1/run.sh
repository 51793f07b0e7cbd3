#!/usr/bin/env bash
# TED-LIUM 3, 452 hours of talks. ./run.sh does all; ./run.sh --help lists the options.
# The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what papers publish.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --token_type bpe --nbpe 500 \
    --asr_config train_asr \
    --encoder conextbimamba \
    --decoder transformer_6 \
    --optim cosine \
    --inference_config decode_asr \
    "$@"
