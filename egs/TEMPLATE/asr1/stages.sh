# shellcheck shell=bash
# Sourced by asr.sh: the stages, each one function that calls one Python command through `step`.
# shellcheck disable=SC2154  # options and names are asr.sh's

# step WHAT FOLDER [OPTION...] -- COMMAND...: run the command unless it is done and still right.
step() {
    local id=${number}_${1//[^A-Za-z0-9_.-]/_}
    python -m mambaasr.bin.stage --name "stage ${number}: $1" --force "${force}" \
        --marker "$2/.stages/${id}.json" --log "$2/log/${id}.log" --timings "${expdir}/timings.tsv" \
        --ignore nj ngpu "${@:3}"
}
files_of() { # files_of FOLDER: what a data folder's contents are known by
    files=("$1"/{wav.scp,text,utt2spk,segments,utt2lang,utt2num_samples})
}
# Training and validation sets that are tested are taken before the filter: no test loses utterances.
formatted() { if among "$1" "${train}" "${valid_set}"; then echo "${raw}/org/$1"; else echo "${raw}/$1"; fi; }

prepare_data() {
    local outputs=() set variables=() corpora=() word
    # What db.sh says of the corpora that local/ asks for.
    while IFS= read -r -d '' word; do
        variables+=("${word}")
        if [[ -n ${word#*=} ]]; then corpora+=("${word#*=}"); fi
    done < <(corpus_variables)
    # Those that are named by hand; what is no folder counts for nothing.
    while IFS= read -r -d '' word; do
        word=${word#--*=}
        if [[ -n ${word} && ${word} != --* ]]; then corpora+=("${word}"); fi
    done < <(split_words "${local_data_opts}")
    for set in "${train_set}" "${valid_set}" "${tests[@]}"; do
        outputs+=("${datadir}/${set}"/{wav.scp,text,utt2spk})
    done
    cmd=(local/data.sh "--nj=${nj}")
    if [[ ${datadir} != data ]]; then cmd+=(--data_dir "${datadir}"); fi
    add_words "${local_data_opts}"
    # check_data --fix mends these folders in place; that must last.
    step "data" "${datadir}" --input local --programs local \
        --variable ${variables[@]+"${variables[@]}"} --corpus ${corpora[@]+"${corpora[@]}"} \
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
    cmd=(python -m mambaasr.bin.filter_data --min_wav_duration "${min_wav_duration}"
        --max_wav_duration "${max_wav_duration}")
    if [[ -n ${text_prefix} ]]; then
        cmd+=(--text_prefix "${text_prefix}" --nlsyms_txt "${nlsyms_txt}")
    fi
    for set in "${train}" "${valid_set}"; do
        files_of "${raw}/org/${set}"
        step "filter ${set}" "${dumpdir}" \
            --input "${files[@]}" --output "${raw}/${set}"/{wav.scp,text,utt2spk} -- \
            "${cmd[@]}" "${raw}/org/${set}" "${raw}/${set}"
    done
}

make_tokens() {
    local outputs=("${token_list}")
    cmd=(python -m mambaasr.bin.make_tokens --token_type "${token_type}" --out "${token_dir}"
        --text "${raw}/${train}/text")
    if [[ ${token_type} == bpe ]]; then
        cmd+=(--nbpe "${nbpe}" --bpemode "${bpemode}" --character_coverage "${bpe_char_cover}"
            --input_sentence_size "${bpe_input_sentence_size}")
        if [[ ${bpe_byte_fallback} == true ]]; then cmd+=(--byte_fallback); fi
        if [[ -n ${bpe_nlsyms} ]]; then cmd+=(--bpe_nlsyms "${bpe_nlsyms}"); fi
        if [[ -n ${text_prefix} ]]; then cmd+=(--text_prefix "${text_prefix}"); fi
        outputs+=("${bpemodel}")
    fi
    if [[ ${nlsyms_txt} != none ]]; then cmd+=(--nlsyms_txt "${nlsyms_txt}"); fi
    step "token list ${tokens}" "${token_dir%/*}" --output "${outputs[@]}" -- "${cmd[@]}"
}

launcher() { # cmd as it begins for a training: in one process, or in one a GPU
    cmd=(python -m)
    if (( ngpu > 1 )); then cmd+=(torch.distributed.run --standalone --nproc_per_node "${ngpu}" -m); fi
}
need_model() { # need_model FILE STAGE
    [[ -f $1 ]] || die "$1: no such model (stage $2 makes them); there are:" \
        "$(find "${1%/*}" -maxdepth 1 -name '*.pth' 2> /dev/null | sort | tr '\n' ' ')"
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
}

statistics() {
    local work=${asr_stats_dir}/.stages
    merge_config --output "${work}/train.yaml"
    # Experiments that differ only in what is known not to matter here share one folder. Of the
    # encoder its class and input layer matter: they say whether a text fits its frames; and whether
    # there is CTC, for which it must fit.
    merge_config --check="${asr_args}" --output "${work}/inputs.yaml" \
        --keep encoder_conf.input_layer --drop 'encoder_conf.*' 'decoder*' 'ctc_conf*' 'specaug*' \
        'normalize*' 'optim*' 'scheduler*' 'exclude_weight_decay*' init init_param freeze_param \
        ignore_init_mismatch max_epoch patience accum_grad 'grad_*' 'batch_*' 'valid_batch_*' \
        num_iters_per_epoch seed unused_parameters use_amp train_dtype ngpu num_workers 'cudnn_*' 'log_*' \
        num_att_plot 'use_tensorboard' 'use_wandb' 'wandb_*' 'keep_*' 'nbest_*' \
        best_model_criterion val_scheduler_criterion early_stopping_criterion resume \
        model_conf.lsm_weight model_conf.length_normalized_loss 'model_conf.report_*' \
        model model_conf.{languages,conditioning,families,lid_weight} --drop_unless_0 model_conf.ctc_weight
    cmd=(python -m)
    asr_train_command
    cmd+=(--collect_stats true --normalize none --output_dir "${asr_stats_dir}"
        --train_shape_file "${raw}/${train}/wav.scp" --valid_shape_file "${raw}/${valid_set}/wav.scp")
    # inputs.yaml stands for what follows.
    local recorded=${#cmd[@]}
    cmd+=(--config "${work}/train.yaml")
    add_words "${asr_args}"
    step "statistics" "${asr_stats_dir}" --recorded "${recorded}" \
        --input "${raw}"/{"${train}","${valid_set}"}/utt2num_samples "${work}/inputs.yaml" \
        --output "${asr_stats_dir}"/{train,valid}/{speech_shape,"text_shape.${token_type}"} \
        "${asr_stats_dir}/train/feats_stats.npz" -- "${cmd[@]}"
}

train() {
    local config=${asr_exp}/.stages/train.yaml kind
    merge_config --output "${config}"
    if (( ngpu == 0 )) && nvidia-smi -L 2> /dev/null | grep -q .; then
        echo "a GPU is here and not used: --ngpu 1 --gpu_inference true"
    fi
    [[ -f ${asr_stats_dir}/train/speech_shape ]] || die "${asr_stats_dir}: no statistics: run stage 10"
    echo "log: ${asr_exp}/train.log"
    launcher
    asr_train_command
    # Under torchrun each process owns one GPU, and ESPnet must not start processes of its own.
    cmd+=(--ngpu "$(( ngpu > 1 ? 1 : ngpu ))" --multiprocessing_distributed false
        --config "${config}" --resume true --fold_length 80000 --fold_length 150
        --ignore_init_mismatch "${ignore_init_mismatch}" --normalize "${feats_normalize}"
        --output_dir "${asr_exp}")
    for kind in train valid; do
        cmd+=("--${kind}_shape_file" "${asr_stats_dir}/${kind}/speech_shape"
            "--${kind}_shape_file" "${asr_stats_dir}/${kind}/text_shape.${token_type}")
    done
    if [[ ${feats_normalize} == global_mvn ]]; then
        cmd+=(--normalize_conf "stats_file=${asr_stats_dir}/train/feats_stats.npz")
    fi
    if [[ -n ${pretrained_model} ]]; then cmd+=(--init_param "${pretrained_model}"); fi
    if [[ ${model_class} == multilingual ]]; then
        for kind in train valid; do
            local set=${valid_set}
            if [[ ${kind} == train ]]; then set=${train}; fi
            cmd+=("--${kind}_data_path_and_name_and_type" "${raw}/${set}/utt2lang,lang,text")
        done
    fi
    add_words "${asr_args}"
    step "training" "${asr_exp}" --ignore config num_workers log_interval log_level \
        --resumes "${asr_exp}"/checkpoint{,.prev}.pth --resume_changed "${resume_changed}" \
        --output "${asr_exp}/config.yaml" -- "${cmd[@]}"
}

decode() {
    local file=${asr_exp}/${inference_asr_model} set data out
    local lm=("${lm_exp}/config.yaml" "${lm_exp}/${inference_lm}")
    need_model "${file}" 11
    if ${use_lm}; then need_model "${lm[1]}" 7; fi
    for set in "${tests[@]}"; do
        data=$(formatted "${set}") out=${decode_dir}/${set}
        cmd=(python -m mambaasr.bin.asr_inference --asr_train_config "${asr_exp}/config.yaml"
            --asr_model_file "${file}" --data_path_and_name_and_type "${data}/wav.scp,speech,sound"
            --key_file "${data}/wav.scp" --output_dir "${out}" --nj "${inference_nj}")
        if [[ ${gpu_inference} == true ]]; then cmd+=(--ngpu 1); else cmd+=(--ngpu 0); fi
        if [[ -n ${inference_config} ]]; then cmd+=(--config "${inference_config}"); fi
        if [[ ${token_type} == bpe ]]; then cmd+=(--bpemodel "${bpemodel}"); fi
        if [[ ${model_class} == multilingual ]]; then cmd+=(--utt2lang "${data}/utt2lang"); fi
        if ${use_lm}; then cmd+=(--lm_train_config "${lm[0]}" --lm_file "${lm[1]}"); fi
        add_words "${inference_args}"
        step "decoding of ${set}" "${out}" --output "${out}"/{text,decode.json} -- "${cmd[@]}"
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
        if [[ -f ${data}/utt2lang ]]; then cmd+=(--utt2lang "${data}/utt2lang"); fi
        if [[ -f ${out}/lang ]]; then cmd+=(--hyp_lang "${out}/lang"); fi
        step "scoring of ${set}" "${out}" --output "${out}"/score/score.{json,txt} -- "${cmd[@]}"
    done
    python -m mambaasr.bin.show_results "${asr_exp}" --output "${asr_exp}/RESULTS.md"
}
