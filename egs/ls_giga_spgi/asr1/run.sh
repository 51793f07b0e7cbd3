#!/usr/bin/env bash
# What Samba-ASR was trained on: LibriSpeech 460, GigaSpeech XL and SPGISpeech, about 15,000 hours of
# English. ./run.sh does all, with our base size of it; ./run.sh --help lists the options; tables/
# lists what is published.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets "gigaspeech test_clean test_other spgispeech" \
    --max_wav_duration 30 \
    --token_type bpe --nbpe 5000 --bpemode bpe --bpe_byte_fallback true --bpe_char_cover 0.9995 \
    --bpe_input_sentence_size 2000000 \
    --nlsyms_txt task_tokens.txt \
    --text_prefix "<|en|> <|transcribe|>" \
    --feats_normalize none \
    --asr_config train_samba \
    --encoder samba_base \
    --decoder samba_base \
    --optim samba \
    --inference_config decode_attention \
    "$@"
