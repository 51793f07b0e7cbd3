#!/usr/bin/env bash
# The five languages in one model with one vocabulary, ConMamba and CTC alone (conf/train_mlma.yaml).
# --local_data_opts takes the place of the one below: repeat its --langs.
# ./run_mlma.sh --model lid asks it for the language, the other blocks tell it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

exec ./run.sh \
    --datadir data/mlma \
    --dumpdir dump/mlma \
    --expdir exp/mlma \
    --local_data_opts "--langs en de es fr it" \
    --test_sets "test_en test_de test_es test_fr test_it" \
    --asr_config conf/train_mlma.yaml \
    "$@"
