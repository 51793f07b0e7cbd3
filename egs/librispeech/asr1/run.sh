#!/usr/bin/env bash
# LibriSpeech, 960 hours of read English. ./run.sh does all; ./run.sh --help lists the options.
# The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what papers publish.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train_960 \
    --valid_set dev \
    --test_sets "dev_clean dev_other test_clean test_other" \
    --speed_perturb_factors "0.95 1.0 1.05" \
    --max_wav_duration 30 \
    --token_type bpe --nbpe 5000 \
    --asr_config train_slytherin_s \
    --encoder conmamba_s \
    --decoder transformer_4 \
    --optim slytherin_s \
    --inference_config decode_asr \
    "$@"
