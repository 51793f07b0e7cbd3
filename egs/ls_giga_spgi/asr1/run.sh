#!/usr/bin/env bash
# What Samba-ASR was trained on: LibriSpeech 460, GigaSpeech XL and SPGISpeech, about 15,000 hours of
# English. ./run.sh does all; ./run.sh --help lists the options; tables/ lists what is published.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
blocks=../../TEMPLATE/asr1/conf

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "gigaspeech test_clean test_other spgispeech" \
    --token_type bpe --nbpe 5000 \
    --asr_config "${blocks}/train_asr.yaml" \
    --encoder "${blocks}/encoder/conmamba_l.yaml" \
    --decoder "${blocks}/decoder/transformer_6h8.yaml" \
    --optim "${blocks}/optim/cosine.yaml" \
    --inference_config "${blocks}/decode_asr.yaml" \
    "$@"
