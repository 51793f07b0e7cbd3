#!/usr/bin/env bash
# MLS, Common Voice and VoxPopuli together, six European languages in one model with one vocabulary:
# what MLMA (arXiv 2510.18684) was trained on, as far as it is known. ./run.sh does all; ./run.sh
# --help lists the options. --model language_embedding tells it the language, --model lid asks it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "mls commonvoice voxpopuli" \
    --max_wav_duration 30 \
    --token_type char \
    --asr_config train_mlma \
    --encoder mlma_18 \
    --optim slytherin_ctc \
    --inference_config decode_ctc \
    "$@"
