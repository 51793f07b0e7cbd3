#!/usr/bin/env bash
# Runs what is missing of a table, row by row, with the run.sh of the table's recipe, and prints it:
#     ../../TEMPLATE/asr1/table.sh tables/x.yaml [--rows a,b] [--scale small] [--keep_going false]
#                                                [--stage N] [--stop_stage M] [options of run.sh]
# What is done is skipped by run.sh's stages, so a table that was stopped goes on when called again.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/path.sh"
case " $* " in *" --help "* | *" -h "*)
    python -m mambaasr.bin.table --help
    if [[ -x run.sh ]]; then printf '\nThe options of run.sh:\n' && ./run.sh --help; fi
    exit
    ;;
esac

# One function, so that bash has read all of it before the first run: these take hours, and the file
# may change meanwhile.
run_table() {
    keep_going=true
    words=("$@")
    for i in "${!words[@]}"; do
        case ${words[i]} in
            --keep_going=false) keep_going=false ;;
            --keep_going) if [[ ${words[i + 1]-} == false ]]; then keep_going=false; fi ;;
        esac
    done

    plan=$(mktemp)
    child=
    # The run goes in the background, so that a signal is not left until it ends.
    # shellcheck disable=SC2317,SC2329  # the traps call it
    stop() { if [[ -n ${child} ]]; then kill -TERM "${child}" 2> /dev/null || true; fi; exit "$1"; }
    trap 'rm -f "${plan}"' EXIT
    trap 'stop 130' INT
    trap 'stop 143' TERM
    python -m mambaasr.bin.table "$@" --plan "${plan}"

    failed=()
    while IFS= read -r -d '' name <&3 && IFS= read -r -d '' count <&3; do
        cmd=()
        for (( i = 0; i < count; i++ )); do IFS= read -r -d '' word <&3; cmd+=("${word}"); done
        printf '\n======== %s\n' "${name}"
        "${cmd[@]}" 3<&- & child=$!
        status=0
        wait "${child}" || status=$?
        child=
        if (( status != 0 )); then
            failed+=("${name}")
            printf '======== %s: failed with exit status %s\n' "${name}" "${status}"
            if [[ ${keep_going} == false ]]; then break; fi
        fi
    done 3< "${plan}"

    printf '\n'
    python -m mambaasr.bin.table "$@"
    if (( ${#failed[@]} > 0 )); then
        printf 'error: %s failed:%s\n' "${#failed[@]}" "$(printf ' %s;' "${failed[@]}")" >&2
        exit 1
    fi
}
run_table "$@"; exit
