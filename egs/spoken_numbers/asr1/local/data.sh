#!/usr/bin/env bash
# Stage 1: data/{train,dev,test_<lang>}, spoken by espeak-ng. Options: local/data.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../TEMPLATE/asr1/path.sh
python local/data.py "$@"
