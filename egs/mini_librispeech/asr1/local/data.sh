#!/usr/bin/env bash
# Stage 1: data/{train,dev,test_clean} from the folder that MINI_LIBRISPEECH names
# (egs/TEMPLATE/asr1/db.sh), downloaded if need be.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
. ../../TEMPLATE/asr1/db.sh
python local/data.py --corpus "${MINI_LIBRISPEECH}" "$@"
