#!/usr/bin/env bash
# A corpus of your own. CORPUS=/folder ./run.sh does all; ./run.sh --help lists the options.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../TEMPLATE/asr1/asr.sh \
    --train_set train \
    --valid_set dev \
    --test_sets test \
    --local_data_opts "--corpus '${CORPUS:-downloads}'" \
    --token_type char \
    --asr_config train_small \
    --inference_config decode_asr \
    "$@"
