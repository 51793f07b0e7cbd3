#!/usr/bin/env bash
# CoVoST 2, speech in one language to text in another, French to English: PAIR=fr_en ./run.sh. An
# encoder and a decoder trained on the translation, without CTC, as word order differs. ./run.sh does
# all, each pair apart; ./run.sh --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

pair=${PAIR:-fr_en}
exec ../../TEMPLATE/asr1/asr.sh \
    --datadir "data/${pair}" \
    --dumpdir "dump/${pair}" \
    --expdir "exp/${pair}" \
    --local_data_opts "--pair ${pair}" \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test" \
    --token_type bpe --nbpe 5000 \
    --asr_config train_asr \
    --model attention \
    --encoder conextbimamba \
    --decoder transformer_6 \
    --optim cosine \
    --inference_config decode_attention \
    "$@"
