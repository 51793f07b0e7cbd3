#!/usr/bin/env bash
# CSJ, spontaneous Japanese. ./run.sh does all; ./run.sh --help lists the options.
# The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what papers publish.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
blocks=../../TEMPLATE/asr1/conf

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "eval1 eval2 eval3" \
    --lang jp \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --token_type char \
    --asr_config "${blocks}/train_asr.yaml" \
    --encoder "${blocks}/encoder/conextbimamba.yaml" \
    --decoder "${blocks}/decoder/transformer_6.yaml" \
    --optim "${blocks}/optim/cosine.yaml" \
    --inference_config "${blocks}/decode_asr.yaml" \
    "$@"
