#!/usr/bin/env bash
# Common Voice, one language or several in one model. ./run.sh trains on Spanish,
# LANGUAGES="cy br" ./run.sh on others, each choice apart; ./run.sh --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

languages=${LANGUAGES:-es}
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
