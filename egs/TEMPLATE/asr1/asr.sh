#!/usr/bin/env bash
# The one staged driver: from a corpus to its error rates, with ESPnet2's stages and options.
# A recipe's run.sh calls it in the recipe's folder; see --help.
# shellcheck disable=SC2154  # the options are variables made by option()
# shellcheck disable=SC2317,SC2329  # the stages are called through run_stage
set -euo pipefail

die() { printf 'error: %s\n' "$*" >&2; exit 2; }

# --- Options: name, default, help. Parsing, checks and --help all come from this table. -----------
option_names=() option_helps=() switches=" "
option() {
    printf -v "$1" '%s' "$2"
    option_names+=("$1") option_helps+=("$3")
    case $2 in true | false) switches+="$1 " ;; esac
}
heading() { option_names+=("") option_helps+=("$1"); }

# More jobs than cores only wait for each other; more than eight want a machine of some memory.
cores=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 4)
jobs=$(( cores < 8 ? cores : 8 ))

heading "What to run"
option stage 1 "first stage: 1 data, 2 speed perturbation, 3 format audio, 4 filter, 5 token list, 6-8 language model, 9 n-gram, 10 statistics, 11 training, 12 decoding, 13 scoring, 14 pack, 15 upload"
option stop_stage 13 "last stage"
option skip_data_prep false "skip stages 1 to 5"
option skip_train false "skip stages 6 to 11"
option skip_eval false "skip stages 12 and 13"
option skip_stages "" "stages to skip, e.g. \"2 13\""
option force false "run the chosen stages although they are done and still right"
option ngpu 0 "GPUs for the training; 0: CPU"
option nj "${jobs}" "parallel jobs for data and statistics"
option inference_nj "${jobs}" "parallel jobs for decoding"
option gpu_inference false "decode on the GPU"
option datadir data "data folders as the corpus gives them"
option dumpdir dump "formatted audio"
option expdir exp "statistics, models, results"

heading "Data"
option train_set "" "training set (required)"
option valid_set "" "validation set (required)"
option test_sets "" "test sets, e.g. \"dev test\" (required)"
option lang noinfo "language, for names"
option local_data_opts "" "options for local/data.sh"
option speed_perturb_factors "" "e.g. \"0.9 1.0 1.1\""
option audio_format flac "flac or wav"
option fs 16k "sampling rate"
option min_wav_duration 0.1 "seconds; training and validation only"
option max_wav_duration 20 "seconds; training and validation only"
option bad_audio skip "unreadable audio: skip (and report) or stop"

heading "Tokens and language model"
option token_type bpe "char, bpe or word"
option nbpe 30 "number of BPE tokens"
option bpemode unigram "unigram or bpe"
option nlsyms_txt none "file with a non-linguistic symbol a line"
option use_lm false "decode with a language model"
option lm_config "" "config of the language model"

heading "Training"
option asr_config "" "yaml of the training, e.g. conf/train_asr.yaml (required)"
option encoder "" "yaml block laid over asr_config, e.g. conf/encoder/mamba.yaml"
option decoder "" "the same for the decoder"
option optim "" "the same for the optimiser"
option asr_args "" "more options for the training, e.g. \"--max_epoch 10\"; they win over the yaml"
option asr_tag "" "name of the experiment; default: from configs, tokens and asr_args"
option asr_exp "" "folder of the experiment; default: <expdir>/asr_<asr_tag>"
option asr_stats_dir "" "folder of the statistics"
option feats_normalize global_mvn "global_mvn, utterance_mvn or none"
option pretrained_model "" "weights to start from: FILE[:FROM:TO[:EXCEPT]]"
option ignore_init_mismatch false "leave out pretrained weights of another shape"
option resume_changed false "go on from a checkpoint that other data or options made"

heading "Decoding"
option inference_config "" "yaml of the decoding, e.g. conf/decode_asr.yaml"
option inference_args "" "more options for the decoding, e.g. \"--beam_size 5\""
option inference_tag "" "name of the decoding; default: from its config, options and model"
option inference_asr_model valid.acc.ave.pth "file in the experiment's folder"

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
    near=$(python3 - "$1" "${option_names[@]}" <<'PY' || true
import difflib, sys
print(" or ".join("--" + name for name in difflib.get_close_matches(sys.argv[1], sys.argv[2:])))
PY
    )
    die "unknown option --$1${near:+ (did you mean ${near}?)}; --help lists them all"
}

help_wanted=false
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

# --- Checks: whatever can be known now is said now, not after hours -------------------------------
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
stage_number() { [[ $2 =~ ^([1-9]|1[0-5])$ ]] || die "--$1 '$2': stages are numbers from 1 to 15"; }

stage_number stage "${stage}"
stage_number stop_stage "${stop_stage}"
read -r -d '' -a skipped <<< "${skip_stages}" || true
for n in ${skipped[@]+"${skipped[@]}"}; do stage_number skip_stages "${n}"; done
# --stage 14 alone asks for 14.
if (( stage > 13 && stop_stage == 13 )); then stop_stage=${stage}; fi
(( stage <= stop_stage )) || die "--stage ${stage} comes after --stop_stage ${stop_stage}"
(( stop_stage < 14 )) || die "stages 14 and 15 (pack, upload) are not built yet: --stop_stage 13"
if [[ ${use_lm} == true || ${stage} == [6-9] || ${stop_stage} == [6-9] ]]; then
    die "the language model is not built yet: --use_lm false, and no stage from 6 to 9"
fi
count ngpu 0
fs=${fs/%k/000}
for name in nj inference_nj nbpe fs; do count "${name}" 1; done
for name in min_wav_duration max_wav_duration; do
    is_number "${!name}" || die "--${name} '${!name}' is not a number"
done
printf '%s\n' "${min_wav_duration}" "${max_wav_duration}" | LC_ALL=C sort -n -C ||
    die "--min_wav_duration ${min_wav_duration} is above --max_wav_duration ${max_wav_duration}"
read -r -d '' -a factors <<< "${speed_perturb_factors}" || true
for word in ${factors[@]+"${factors[@]}"}; do
    { is_number "${word}" && [[ ${word} == *[1-9]* ]]; } ||
        die "--speed_perturb_factors '${word}' is not a number above 0"
done
one_of audio_format flac wav
one_of bad_audio skip stop
one_of token_type char bpe word
one_of bpemode unigram bpe
one_of feats_normalize global_mvn utterance_mvn none
for name in train_set valid_set test_sets asr_config; do
    [[ ${!name} == *[![:space:]]* ]] || die "--${name} is required"
done
for name in asr_config encoder decoder optim inference_config; do
    [[ -z ${!name} || -f ${!name} ]] || die "--${name} ${!name}: no such file; there are:" \
        "$(find "$(dirname "${!name}")" -maxdepth 1 -name '*.yaml' 2> /dev/null | sort | tr '\n' ' ')"
done
[[ ${nlsyms_txt} == none || -f ${nlsyms_txt} ]] || die "--nlsyms_txt ${nlsyms_txt}: no such file"
[[ -z ${pretrained_model} || -f ${pretrained_model%%:*} ]] ||
    die "--pretrained_model ${pretrained_model}: no such file: ${pretrained_model%%:*}"

# shellcheck source-path=SCRIPTDIR source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/path.sh"

cmd=()
add_words() { # add_words TEXT: append its words to cmd, by the shell's quoting rules, running nothing
    local word
    while IFS= read -r -d '' word; do cmd+=("${word}"); done < <(split_words "$1")
}
split_words() {
    python -c 'import shlex, sys; sys.stdout.write("".join(w + "\0" for w in shlex.split(sys.argv[1])))' "$1"
}
for name in local_data_opts asr_args inference_args; do
    split_words "${!name}" > /dev/null 2>&1 || die "--${name} '${!name}': a quotation mark is not closed"
done
merge_config() { # merge_config OPTION...
    local blocks=() block
    for block in "${encoder}" "${decoder}" "${optim}"; do
        [[ -z ${block} ]] || blocks+=(--block "${block}")
    done
    python -m mambaasr.bin.merge_config --base "${asr_config}" ${blocks[@]+"${blocks[@]}"} "$@"
}
merge_config --check="${asr_args}" --check_decoding="${inference_args}" \
    --decoding_config="${inference_config}" > /dev/null

# --- Names, as ESPnet2 gives them -----------------------------------------------------------------
plain() { printf '%s' "${1//--/_}" | tr -cd 'A-Za-z0-9_.+-'; } # options as part of a file name
stem() { local file=${1##*/}; plain "${file%.*}"; }

train=${train_set}${speed_perturb_factors:+_sp}
read -r -d '' -a tests <<< "${test_sets}" || true
raw=${dumpdir}/raw
tokens=${token_type}
if [[ ${token_type} == bpe ]]; then tokens+=_${bpemode}${nbpe}; fi
language=${lang#noinfo}
token_dir=${datadir}/${language:+${language}_}token_list/${tokens}
token_list=${token_dir}/tokens.txt
bpemodel=none
if [[ ${token_type} == bpe ]]; then bpemodel=${token_dir}/bpe.model; fi
suffix=raw${language:+_${language}}_${token_type}
if [[ ${token_type} == bpe ]]; then suffix+=${nbpe}; fi
: "${asr_stats_dir:=${expdir}/asr_stats_${suffix}${speed_perturb_factors:+_sp}}"
if [[ -z ${asr_tag} ]]; then
    asr_tag=$(stem "${asr_config}")
    # Blocks of one name in different slots are different models.
    asr_tag+=${encoder:+_enc_$(stem "${encoder}")}${decoder:+_dec_$(stem "${decoder}")}
    asr_tag+=${optim:+_opt_$(stem "${optim}")}
    asr_tag+=_${suffix}$(plain "${asr_args// /}")${speed_perturb_factors:+_sp}
fi
: "${asr_exp:=${expdir}/asr_${asr_tag}}"
if [[ -z ${inference_tag} ]]; then
    inference_tag=$(stem "${inference_config:-inference}")$(plain "${inference_args// /}")
    inference_tag+=_asr_model_$(stem "${inference_asr_model}")
fi
decode_dir=${asr_exp}/${inference_tag}
for name in asr_tag inference_tag; do
    value=${!name}
    (( ${#value} < 200 )) || die "--${name} is too long for a file name: give a shorter one"
done
# These go into yaml values and ESPnet's "PATH,name,type", where such characters would mean
# something. They are relative paths: the folders above the recipe may be called anything.
unfit="[],:;#\"\`\$&*!|<>%{}'\\\\[]|[[:cntrl:]]"
for name in train_set valid_set test_sets datadir dumpdir expdir lang asr_tag inference_tag \
    asr_exp asr_stats_dir; do
    [[ ! ${!name} =~ ${unfit} ]] ||
        die "--${name} '${!name}': use letters, digits, spaces and . _ + - = / in names"
done

# --- Stages ---------------------------------------------------------------------------------------
# step WHAT FOLDER [OPTION...] -- COMMAND...: run the command unless it is done and still right.
step() {
    local id=${number}_${1//[^A-Za-z0-9_.-]/_}
    python -m mambaasr.bin.stage --name "stage ${number}: $1" --force "${force}" \
        --marker "$2/.stages/${id}.json" --log "$2/log/${id}.log" --timings "${expdir}/timings.tsv" \
        --ignore nj "${@:3}"
}
files_of() { # files_of FOLDER: what a data folder's contents are known by
    files=("$1"/{wav.scp,text,utt2spk,segments,utt2lang,utt2num_samples})
}
# Training and validation sets that are tested are taken before the filter: no test loses utterances.
formatted() { if among "$1" "${train}" "${valid_set}"; then echo "${raw}/org/$1"; else echo "${raw}/$1"; fi; }

prepare_data() {
    local outputs=() set corpora=() variable
    # What db.sh says of the corpora that local/ asks for.
    while IFS= read -r -d '' variable; do corpora+=("${variable}"); done < <(corpus_variables)
    for set in "${train_set}" "${valid_set}" "${tests[@]}"; do
        outputs+=("${datadir}/${set}"/{wav.scp,text,utt2spk})
    done
    cmd=(local/data.sh "--nj=${nj}")
    if [[ ${datadir} != data ]]; then cmd+=(--data_dir "${datadir}"); fi
    add_words "${local_data_opts}"
    # check_data --fix mends these folders in place; that must last.
    step "data" "${datadir}" --input local --variable ${corpora[@]+"${corpora[@]}"} \
        --keep_outputs true --output "${outputs[@]}" -- "${cmd[@]}"
}
corpus_variables() ( # NAME=VALUE, each behind it a null byte
    db=$(dirname "${BASH_SOURCE[0]}")/db.sh
    # shellcheck source-path=SCRIPTDIR source=db.sh
    . "${db}"
    sed -n 's/^ *\(export \)\{0,1\}\([A-Za-z_][A-Za-z0-9_]*\)=.*/\2/p' "${db}" | while read -r name; do
        if grep -rqsw -e "${name}" local; then printf '%s=%s\0' "${name}" "${!name-}"; fi
    done
)

perturb_speed() {
    if [[ -z ${speed_perturb_factors} ]]; then echo "no --speed_perturb_factors: nothing to do"; return; fi
    files_of "${datadir}/${train_set}"
    step "speed perturbation of ${train_set}" "${datadir}" \
        --input "${files[@]}" --output "${datadir}/${train}"/{wav.scp,text,utt2spk} -- \
        python -m mambaasr.bin.perturb_speed --factors "${speed_perturb_factors}" --nj "${nj}" \
        --bad_audio "${bad_audio}" \
        "${datadir}/${train_set}" "${datadir}/${train}"
}

format_audio() {
    local set out sets=("${train}")
    for set in "${valid_set}" "${tests[@]}"; do
        if ! among "${set}" "${sets[@]}"; then sets+=("${set}"); fi
    done
    for set in "${sets[@]}"; do
        out=$(formatted "${set}")
        cmd=(python -m mambaasr.bin.format_audio --fs "${fs}" --audio_format "${audio_format}"
            --nj "${nj}" --bad_audio "${bad_audio}")
        # An utterance whose audio is bad stays in the error rate.
        if among "${set}" "${tests[@]}"; then cmd+=(--keep_bad); fi
        files_of "${datadir}/${set}"
        step "format audio of ${set}" "${dumpdir}" \
            --input "${files[@]}" --output "${out}"/{wav.scp,text,utt2spk,utt2num_samples} -- \
            "${cmd[@]}" "${datadir}/${set}" "${out}"
    done
}

filter() {
    local set
    for set in "${train}" "${valid_set}"; do
        files_of "${raw}/org/${set}"
        step "filter ${set}" "${dumpdir}" \
            --input "${files[@]}" --output "${raw}/${set}"/{wav.scp,text,utt2spk} -- \
            python -m mambaasr.bin.filter_data --min_wav_duration "${min_wav_duration}" \
            --max_wav_duration "${max_wav_duration}" "${raw}/org/${set}" "${raw}/${set}"
    done
}

make_tokens() {
    local outputs=("${token_list}")
    cmd=(python -m mambaasr.bin.make_tokens --token_type "${token_type}" --out "${token_dir}"
        --text "${raw}/${train}/text")
    if [[ ${token_type} == bpe ]]; then
        cmd+=(--nbpe "${nbpe}" --bpemode "${bpemode}")
        outputs+=("${bpemodel}")
    fi
    if [[ ${nlsyms_txt} != none ]]; then cmd+=(--nlsyms_txt "${nlsyms_txt}"); fi
    step "token list ${tokens}" "${token_dir%/*}" --input "${raw}/${train}/text" "${nlsyms_txt}" \
        --output "${outputs[@]}" -- "${cmd[@]}"
}

# What statistics and training have in common.
asr_train_command() {
    cmd+=(mambaasr.bin.asr_train --use_preprocessor true --bpemodel "${bpemodel}"
        --token_type "${token_type}" --token_list "${token_list}"
        --non_linguistic_symbols "${nlsyms_txt}" --cleaner none --g2p none
        --frontend_conf "fs=${fs}")
    local kind
    for kind in train valid; do
        local set=${valid_set}
        if [[ ${kind} == train ]]; then set=${train}; fi
        cmd+=("--${kind}_data_path_and_name_and_type" "${raw}/${set}/wav.scp,speech,sound"
            "--${kind}_data_path_and_name_and_type" "${raw}/${set}/text,text,text")
    done
    files=("${token_list}" "${bpemodel}" "${nlsyms_txt}"
        "${raw}/${train}"/{wav.scp,text} "${raw}/${valid_set}"/{wav.scp,text})
}

statistics() {
    local work=${asr_stats_dir}/.stages word ignored=(config)
    merge_config --output "${work}/train.yaml"
    # Experiments that differ only in what is known not to matter here share one folder. Of the
    # encoder its class and input layer matter: they say whether a text fits its frames.
    merge_config --check="${asr_args}" --output "${work}/inputs.yaml" \
        --keep encoder_conf.input_layer --drop 'encoder_conf.*' 'decoder*' 'ctc_conf*' 'specaug*' \
        'normalize*' 'optim*' 'scheduler*' 'exclude_weight_decay*' init init_param freeze_param \
        ignore_init_mismatch max_epoch patience accum_grad 'grad_*' 'batch_*' 'valid_batch_*' \
        num_iters_per_epoch seed use_amp train_dtype ngpu num_workers 'cudnn_*' 'log_*' \
        num_att_plot 'use_tensorboard' 'use_wandb' 'wandb_*' 'keep_*' 'nbest_*' \
        best_model_criterion val_scheduler_criterion early_stopping_criterion resume \
        model_conf.lsm_weight model_conf.length_normalized_loss 'model_conf.report_*'
    cmd=(python -m)
    asr_train_command
    cmd+=(--collect_stats true --config "${work}/train.yaml" --normalize none
        --train_shape_file "${raw}/${train}/wav.scp" --valid_shape_file "${raw}/${valid_set}/wav.scp"
        --output_dir "${asr_stats_dir}")
    add_words "${asr_args}"
    for word in $(split_words "${asr_args}" | tr '\0' '\n' | sed -n 's/^--\([a-z0-9_]*\).*/\1/p'); do
        ignored+=("${word}")
    done
    files+=("${raw}/${train}/utt2num_samples" "${raw}/${valid_set}/utt2num_samples")
    step "statistics" "${asr_stats_dir}" --ignore "${ignored[@]}" \
        --input "${files[@]}" "${work}/inputs.yaml" \
        --output "${asr_stats_dir}"/{train,valid}/{speech_shape,"text_shape.${token_type}"} \
        "${asr_stats_dir}/train/feats_stats.npz" -- "${cmd[@]}"
}

train() {
    local config=${asr_exp}/.stages/train.yaml kind
    merge_config --output "${config}"
    if (( ngpu > 1 )); then
        cmd=(python -m torch.distributed.run --standalone --nproc_per_node "${ngpu}" -m)
    else
        cmd=(python -m)
    fi
    asr_train_command
    # Under torchrun each process owns one GPU, and ESPnet must not start processes of its own.
    cmd+=(--ngpu "$(( ngpu > 1 ? 1 : ngpu ))" --multiprocessing_distributed false
        --config "${config}" --resume true --fold_length 80000 --fold_length 150
        --ignore_init_mismatch "${ignore_init_mismatch}" --normalize "${feats_normalize}"
        --output_dir "${asr_exp}")
    for kind in train valid; do
        files+=("${asr_stats_dir}/${kind}"/{speech_shape,"text_shape.${token_type}"})
        cmd+=("--${kind}_shape_file" "${asr_stats_dir}/${kind}/speech_shape"
            "--${kind}_shape_file" "${asr_stats_dir}/${kind}/text_shape.${token_type}")
    done
    if [[ ${feats_normalize} == global_mvn ]]; then
        files+=("${asr_stats_dir}/train/feats_stats.npz")
        cmd+=(--normalize_conf "stats_file=${asr_stats_dir}/train/feats_stats.npz")
    fi
    if [[ -n ${pretrained_model} ]]; then
        files+=("${pretrained_model%%:*}")
        cmd+=(--init_param "${pretrained_model}")
    fi
    add_words "${asr_args}"
    step "training" "${asr_exp}" --ignore config ngpu nproc_per_node num_workers log_interval log_level \
        --resumes "${asr_exp}"/checkpoint{,.prev}.pth --resume_changed "${resume_changed}" \
        --input "${files[@]}" "${config}" --output "${asr_exp}/config.yaml" -- "${cmd[@]}"
}

decode() {
    local model=${asr_exp}/${inference_asr_model} set data out
    [[ -f ${model} ]] || die "${model}: no such model; there are:" \
        "$(find "${asr_exp}" -maxdepth 1 -name '*.pth' 2> /dev/null | sort | tr '\n' ' ')"
    for set in "${tests[@]}"; do
        data=$(formatted "${set}") out=${decode_dir}/${set}
        cmd=(python -m mambaasr.bin.asr_inference --asr_train_config "${asr_exp}/config.yaml"
            --asr_model_file "${model}" --data_path_and_name_and_type "${data}/wav.scp,speech,sound"
            --key_file "${data}/wav.scp" --output_dir "${out}" --nj "${inference_nj}")
        if [[ ${gpu_inference} == true ]]; then cmd+=(--ngpu 1); else cmd+=(--ngpu 0); fi
        if [[ -n ${inference_config} ]]; then cmd+=(--config "${inference_config}"); fi
        add_words "${inference_args}"
        step "decoding of ${set}" "${out}" --output "${out}"/{text,decode.json} \
            --input "${data}/wav.scp" "${asr_exp}/config.yaml" "${model}" "${inference_config}" -- \
            "${cmd[@]}"
    done
}

score() {
    local set data out
    for set in "${tests[@]}"; do
        data=$(formatted "${set}") out=${decode_dir}/${set}
        cmd=(python -m mambaasr.bin.score --ref "${data}/text" --hyp "${out}/text"
            --utt2spk "${data}/utt2spk" --token_type "${token_type}" --output_dir "${out}/score")
        if [[ ${token_type} == bpe ]]; then cmd+=(--bpe_model "${bpemodel}"); fi
        if [[ ${nlsyms_txt} != none ]]; then cmd+=(--nlsyms_txt "${nlsyms_txt}"); fi
        step "scoring of ${set}" "${out}" --output "${out}"/score/score.{json,txt} \
            --input "${data}"/{text,utt2spk} "${out}/text" "${bpemodel}" "${nlsyms_txt}" -- "${cmd[@]}"
    done
    python -m mambaasr.bin.show_results "${asr_exp}" --output "${asr_exp}/RESULTS.md"
}

stage_times=()
run_stage() { # run_stage NUMBER TITLE FUNCTION
    number=$1
    local begun=${SECONDS}
    local skip=${skip_eval}
    if (( number <= 5 )); then skip=${skip_data_prep}; elif (( number <= 11 )); then skip=${skip_train}; fi
    if (( number < stage || number > stop_stage )) || ${skip}; then return; fi
    if [[ " ${skipped[*]-} " == *" ${number} "* ]]; then return; fi
    printf '\n== Stage %s: %s\n' "${number}" "$2"
    "$3"
    stage_times+=("$(printf '%5d  %-22s %6d s' "${number}" "$2" "$(( SECONDS - begun ))")")
}

run_stage 1 "data preparation" prepare_data
run_stage 2 "speed perturbation" perturb_speed
run_stage 3 "format audio" format_audio
run_stage 4 "filter" filter
run_stage 5 "token list" make_tokens
if (( stage < 6 && stop_stage > 9 )) && ! ${skip_train}; then
    printf '\n== Stages 6 to 9: no language model (--use_lm false)\n'
fi
run_stage 10 "statistics" statistics
run_stage 11 "training" train
run_stage 12 "decoding" decode
run_stage 13 "scoring" score

printf '\nStage  %-22s %8s\n' "" "time"
printf '%s\n' ${stage_times[@]+"${stage_times[@]}"}
printf '%-9s%s\n' "all" "${SECONDS} s (each command: ${expdir}/timings.tsv)"
where() { if [[ -e $2 ]]; then printf '%-9s%s\n' "$1" "$2"; fi; }
where "model" "${asr_exp}/${inference_asr_model}"
where "log" "${asr_exp}/train.log"
where "results" "${asr_exp}/RESULTS.md"
