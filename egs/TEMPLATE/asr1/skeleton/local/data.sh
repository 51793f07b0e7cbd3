#!/usr/bin/env bash
# Stage 1: data/{train,dev,test} from the folder that CORPUS names. Options: local/data.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
. ../../TEMPLATE/asr1/path.sh
python local/data.py "$@"
