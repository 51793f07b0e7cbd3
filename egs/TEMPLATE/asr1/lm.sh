# shellcheck shell=bash
# Sourced by asr.sh: the stages of the language model.
# shellcheck disable=SC2154  # options and names are asr.sh's

lm_train=${raw}/lm_train.txt lm_dev=${raw}/lm_dev.txt

# join_texts NAME FILES OUT [OPTION...]: the texts of FILES, quoted as in a shell, in one file.
join_texts() {
    cmd=(python -m mambaasr.bin.join_texts --out "$3" --text)
    add_words "$2"
    step "text for $1" "${dumpdir}" --output "$3" -- "${cmd[@]}" "${@:4}"
}

# What statistics and training have in common.
lm_train_command() {
    cmd+=(mambaasr.bin.lm_train --use_preprocessor true --bpemodel "${bpemodel}"
        --token_type "${token_type}" --token_list "${token_list}"
        --non_linguistic_symbols "${nlsyms_txt}" --cleaner none --g2p none
        --train_data_path_and_name_and_type "${lm_train},text,text"
        --valid_data_path_and_name_and_type "${lm_dev},text,text")
}

lm_statistics() {
    local work=${lm_stats_dir}/.stages
    if [[ -z ${lm_config} ]]; then echo "no --lm_config: ${lm_exp} is taken as it is"; return; fi
    local copies=()
    if (( ${#lm_leave_out[@]} > 0 )); then copies=(--leave_out "${lm_leave_out[@]}"); fi
    join_texts training "${lm_train_text}" "${lm_train}" ${copies[@]+"${copies[@]}"}
    join_texts validation "${lm_dev_text}" "${lm_dev}"
    # Only what makes tokens of a text matters here: models share one folder.
    python -m mambaasr.bin.merge_config --task lm --base "${lm_config}" --check="${lm_args}" \
        --output "${work}/inputs.yaml" --drop '*' --keep cleaner g2p use_preprocessor
    cmd=(python -m)
    lm_train_command
    cmd+=(--collect_stats true --output_dir "${lm_stats_dir}"
        --train_shape_file "${lm_train}" --valid_shape_file "${lm_dev}")
    # inputs.yaml stands for what follows.
    local recorded=${#cmd[@]}
    cmd+=(--config "${lm_config}")
    add_words "${lm_args}"
    step "statistics of the texts" "${lm_stats_dir}" --recorded "${recorded}" \
        --input "${work}/inputs.yaml" \
        --output "${lm_stats_dir}"/{train,valid}/"text_shape.${token_type}" -- "${cmd[@]}"
}

lm_training() {
    local kind
    if [[ -z ${lm_config} ]]; then echo "no --lm_config: ${lm_exp} is taken as it is"; return; fi
    launcher
    lm_train_command
    cmd+=(--ngpu "$(( ngpu > 1 ? 1 : ngpu ))" --multiprocessing_distributed false
        --config "${lm_config}" --resume true --fold_length 150 --output_dir "${lm_exp}")
    for kind in train valid; do
        cmd+=("--${kind}_shape_file" "${lm_stats_dir}/${kind}/text_shape.${token_type}")
    done
    add_words "${lm_args}"
    step "training of the language model" "${lm_exp}" \
        --ignore config num_workers log_interval log_level \
        --resumes "${lm_exp}"/checkpoint{,.prev}.pth --resume_changed "${resume_changed}" \
        --output "${lm_exp}/config.yaml" -- "${cmd[@]}"
}

perplexity() {
    local file=${lm_exp}/${inference_lm} out=${lm_exp}/perplexity_test
    need_model "${file}" 7
    step "perplexity" "${out}" --input "${bpemodel}" --output "${out}"/{ppl,perplexity.json} -- \
        python -m mambaasr.bin.lm_calc_perplexity --train_config "${lm_exp}/config.yaml" \
        --model_file "${file}" --data_path_and_name_and_type "${lm_test_text},text,text" \
        --ngpu "$(( ngpu > 0 ))" --output_dir "${out}"
}
