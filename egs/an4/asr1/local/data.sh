#!/usr/bin/env bash
# Stage 1: data/{train_nodev,train_dev,test} from the corpus that AN4 names, downloaded if need be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
# The driver's --nj comes first; there is too little to do for several processes.
if [[ ${1-} == --nj=* ]]; then shift; fi
python local/data.py --corpus "${AN4}" "$@"
