#!/usr/bin/env bash
# GigaSpeech XL, 10,000 hours of audio books, podcasts and videos. ./run.sh does all; ./run.sh --help
# lists the options. The blocks in ../../TEMPLATE/asr1/conf swap any part; tables/ lists what papers
# publish. No speed perturbation: there is enough speech.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train_xl \
    --valid_set dev \
    --test_sets "dev test" \
    --token_type bpe --nbpe 5000 \
    --asr_config train_asr \
    --encoder conextbimamba \
    --decoder transformer_6 \
    --optim cosine \
    --inference_config decode_asr \
    "$@"
