#!/usr/bin/env bash
# LibriSpeech, its first 100 hours. ./run.sh does all; ./run.sh --help lists the options.
# The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what papers publish.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train_clean_100 \
    --valid_set dev \
    --test_sets "dev_clean dev_other test_clean test_other" \
    --speed_perturb_factors "0.9 1.0 1.1" \
    --max_wav_duration 30 \
    --token_type bpe --nbpe 5000 \
    --asr_config train_asr \
    --encoder conextbimamba \
    --decoder transformer_6 \
    --optim cosine \
    --inference_config decode_asr \
    "$@"
