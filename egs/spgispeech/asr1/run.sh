#!/usr/bin/env bash
# SPGISpeech, 5,000 hours of earnings calls. ./run.sh does all; ./run.sh --help lists the options.
# The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what is published. No speed
# perturbation: there is enough speech.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "dev val" \
    --token_type bpe --nbpe 5000 \
    --asr_config train_asr \
    --encoder conextbimamba \
    --decoder transformer_6 \
    --optim cosine \
    --inference_config decode_asr \
    "$@"
