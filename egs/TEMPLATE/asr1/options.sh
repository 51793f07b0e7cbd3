# shellcheck shell=bash
# Sourced by asr.sh: a table of options, the command line over it, and checks of their values.
# shellcheck disable=SC2154  # asr.sh says where it lies: here

die() { printf 'error: %s\n' "$*" >&2; exit 2; }

option_names=() option_helps=() switches=" "
option() {
    printf -v "$1" '%s' "$2"
    option_names+=("$1") option_helps+=("$3")
    case $2 in true | false) switches+="$1 " ;; esac
}
heading() { option_names+=("") option_helps+=("$1"); }

print_help() {
    printf 'Usage: %s [--NAME VALUE | --NAME=VALUE] ...   (in brackets: the value as it stands)\n' "$0"
    local i name
    for i in "${!option_names[@]}"; do
        name=${option_names[i]}
        if [[ -z ${name} ]]; then
            printf '\n%s\n' "${option_helps[i]}"
        else
            printf '  --%-21s %s [%s]\n' "${name}" "${option_helps[i]}" "${!name}"
        fi
    done
}

unknown_option() {
    local near
    near=$(near_words "--$1" "${option_names[@]/#/--}")
    die "unknown option --$1${near:+ (did you mean ${near}?)}; --help lists them all"
}

parse_options() { # parse_options WORD...: set the table's variables, or print its --help and leave
    local help_wanted=false name given value
    while (( $# > 0 )); do
        case $1 in
            --help | -h) help_wanted=true; shift; continue ;;
            --*) ;;
            *) die "'$1' is not an option: write --name value (a value of several words in quotes)" ;;
        esac
        name=${1#--} given=false
        if [[ ${name} == *=* ]]; then
            value=${name#*=} name=${name%%=*} given=true
        fi
        name=${name//-/_}
        # Only names of the table get through, so printf -v can set nothing else.
        [[ ${name} =~ ^[a-z_]+$ && " ${option_names[*]} " == *" ${name} "* ]] || unknown_option "${name}"
        if ! ${given}; then
            (( $# > 1 )) || die "--${name} needs a value"
            value=$2; shift
        fi
        [[ ${switches} != *" ${name} "* || ${value} =~ ^(true|false)$ ]] ||
            die "--${name} takes true or false, not '${value}'"
        printf -v "${name}" '%s' "${value}"
        shift
    done
    if ${help_wanted}; then print_help; exit 0; fi
}

among() { # among WORD WORDS...: is it one of them?
    local word
    for word in "${@:2}"; do [[ $1 == "${word}" ]] && return; done
    return 1
}
one_of() { among "${!1}" "${@:2}" || die "--$1 '${!1}': choose one of: ${*:2}"; } # OPTION CHOICE...
is_number() { [[ $1 =~ ^[0-9]+(\.[0-9]+)?$ ]]; }
count() { # count OPTION MINIMUM
    [[ ${!1} =~ ^(0|[1-9][0-9]{0,5})$ ]] || die "--$1 '${!1}' is not a whole number"
    (( ${!1} >= $2 )) || die "--$1 ${!1}: must be at least $2"
}
find_block() { # find_block OPTION: its yaml; a name alone is looked for in conf, then in TEMPLATE's
    local value=${!1} folder=conf file places names near
    if [[ -z ${value} ]]; then return; fi
    case $1 in encoder | decoder | model | optim) folder+=/$1 ;; esac
    places=("${folder}" "${here}/${folder}")
    if [[ ${value} == */* ]]; then places=("$(dirname "${value}")"); fi
    for file in "${value}" "${places[@]/%//${value%.yaml}.yaml}"; do
        if [[ -f ${file} && (${file} == "${value}" || ${value} != */*) ]]; then
            # A block of another slot would leave this one as it is.
            [[ ${folder} == conf ]] || grep -Eq "^($1|$1_conf):" "${file}" ||
                die "--$1 ${value}: ${file} has neither '$1:' nor '$1_conf:'"
            printf -v "$1" '%s' "${file}"
            return
        fi
    done
    names=$(find "${places[@]}" -maxdepth 1 -name '*.yaml' 2> /dev/null | sed 's|.*/||; s|[.]yaml$||' | sort -u || true)
    case $1 in
        asr_config) names=$(grep -v -e '^decode' -e '^train_lm' <<< "${names}" || true) ;;
        lm_config) names=$(grep '^train_lm' <<< "${names}" || true) ;;
        inference_config) names=$(grep '^decode' <<< "${names}" || true) ;;
    esac
    read -r -d '' -a names <<< "${names}" || true
    near=$(near_words "$(stem_of "${value}")" ${names[@]+"${names[@]}"})
    die "--$1 ${value}: no such file${near:+ (did you mean ${near}?)}; there are: ${names[*]-}"
}
stem_of() { local name=${1##*/}; printf '%s' "${name%.yaml}"; }
near_words() { # near_words WORD WORDS...: those that look like it
    python3 - "$@" <<'PY' || true
import difflib, sys
print(" or ".join(difflib.get_close_matches(sys.argv[1], sys.argv[2:])))
PY
}
stage_number() { [[ $2 =~ ^([1-9]|1[0-5])$ ]] || die "--$1 '$2': stages are numbers from 1 to 15"; }
