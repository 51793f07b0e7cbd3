#!/usr/bin/env bash
# FLEURS, 102 languages in one model with one vocabulary. ./run.sh does all;
# LANGUAGES="en_us de_de" ./run.sh takes some, apart from others; ./run.sh --help lists the options.
# --model language_embedding tells it the language, --model lid asks it for it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

languages=${LANGUAGES:-all}
apart=${languages// /_}
exec ../../TEMPLATE/asr1/asr.sh \
    --datadir "data/${apart}" \
    --dumpdir "dump/${apart}" \
    --expdir "exp/${apart}" \
    --local_data_opts "--languages ${languages}" \
    --train_set train \
    --valid_set dev \
    --test_sets "dev test" \
    --token_type char \
    --asr_config train_mlma \
    --encoder mlma_18 \
    --optim slytherin_ctc \
    --inference_config decode_ctc \
    "$@"
