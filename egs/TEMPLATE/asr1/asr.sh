#!/usr/bin/env bash
# The one staged driver: from a corpus to its error rates, with ESPnet2's stages and options.
# A recipe's run.sh calls it in the recipe's folder; see --help.
# shellcheck disable=SC2154  # the options are variables made by option()
# shellcheck disable=SC2317,SC2329  # the stages are called through run_stage
{ # Read whole before it runs, so that an edit does not change a recipe on its way.
set -euo pipefail

here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source-path=SCRIPTDIR source=options.sh
. "${here}/options.sh"

# --- Options: name, default, help. Parsing, checks and --help all come from this table. -----------
# More jobs than cores only wait for each other; more than eight want a machine of some memory.
cores=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 4)
jobs=$(( cores < 8 ? cores : 8 ))

heading "What to run"
option stage 1 "first stage: 1 data, 2 speed perturbation, 3 format audio, 4 filter, 5 token list, 6-8 language model, 10 statistics, 11 training, 12 decoding, 13 scoring (9 n-gram, 14 pack and 15 upload are not built yet)"
option stop_stage 13 "last stage"
option skip_data_prep false "skip stages 1 to 5"
option skip_train false "skip stages 6 to 11"
option skip_eval false "skip stages 12 and 13"
option skip_stages "" "stages to skip, e.g. \"2 13\""
option force false "run the chosen stages although they are done and still right; a finished training only averages its models again"
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
option bpe_char_cover 1.0 "BPE: share of the characters that get a token"
option bpe_byte_fallback false "BPE: spell other characters in bytes, so that nothing is unknown; takes 256 tokens"
option bpe_input_sentence_size 100000000 "BPE: transcripts to learn from, at most"
option bpe_nlsyms "" "BPE: further symbols to keep in one piece: a file, or with commas"
option nlsyms_txt none "file with a non-linguistic symbol a line; they are not scored"
option text_prefix "" "task tokens before the transcripts of training and validation, e.g. \"<|{lang}|> <|transcribe|>\"; list them in --nlsyms_txt"
option use_lm false "train a language model (stages 6 to 8) and decode with it, by the decoding's lm_weight"
option lm_config "" "yaml of its training, e.g. conf/train_lm.yaml"
option lm_args "" "more options for its training, e.g. \"--max_epoch 10\"; they win over the yaml"
option lm_tag "" "name of its experiment; default: from its config, tokens and lm_args"
option lm_exp "" "folder of its experiment; default: <expdir>/lm_<lm_tag>; without lm_config: a trained one"
option lm_stats_dir "" "folder of its statistics"
option lm_train_text "" "texts to train it on, e.g. \"data/train/text data/local/other_text/text\"; default: the training set's, at one speed"
option lm_dev_text "" "texts to validate it on; default: the validation set's"
option lm_test_text "" "text to measure its perplexity on; default: that of the first test set that is not the validation set"
option inference_lm valid.loss.ave.pth "file in its folder to decode with"

heading "Training"
option asr_config "" "yaml of the training, e.g. conf/train_asr.yaml (required); of this and every other yaml the name alone will do: train_asr is conf/train_asr.yaml here or in TEMPLATE/asr1"
option encoder "" "yaml block laid over asr_config, e.g. conf/encoder/mamba.yaml, or mamba"
option decoder "" "the same for the decoder"
option model "" "the same for the model around them, e.g. conf/model/lid.yaml"
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
option inference_asr_model "" "file in the experiment's folder; default: the average by best_model_criterion, e.g. valid.acc.ave.pth"

parse_options "$@"

# --- Checks: whatever can be known now is said now, not after hours -------------------------------

stage_number stage "${stage}"
stage_number stop_stage "${stop_stage}"
read -r -d '' -a skipped <<< "${skip_stages}" || true
for n in ${skipped[@]+"${skipped[@]}"}; do stage_number skip_stages "${n}"; done
# --stage 14 alone asks for 14.
if (( stage > 13 && stop_stage == 13 )); then stop_stage=${stage}; fi
(( stage <= stop_stage )) || die "--stage ${stage} comes after --stop_stage ${stop_stage}"
(( stop_stage < 14 )) || die "stages 14 and 15 (pack, upload) are not built yet: --stop_stage 13"
(( stage != 9 && stop_stage != 9 )) || die "stage 9 (n-gram) is not built yet: --stop_stage 8 or --stage 10"
if ! ${use_lm} && (( stage > 5 && stop_stage < 9 )); then
    die "stages 6 to 8 are the language model's: --use_lm true"
fi
# One of the user's own may come with the arguments.
if ! ${use_lm} && [[ ${inference_args} != *--lm_file* && ${inference_args} =~ --lm_weight[[:space:]=]+([0-9.]*[1-9]) ]]; then
    die "--lm_weight ${BASH_REMATCH[1]} has no effect without a language model: --use_lm true"
fi
if ${use_lm} && [[ -z ${lm_config}${lm_exp} ]]; then
    die "--use_lm true needs --lm_config, or --lm_exp with a trained one"
fi
count ngpu 0
fs=${fs/%k/000}
for name in nj inference_nj nbpe fs; do count "${name}" 1; done
[[ ${bpe_input_sentence_size} =~ ^(0|[1-9][0-9]{0,8})$ ]] ||
    die "--bpe_input_sentence_size '${bpe_input_sentence_size}' is not a whole number"
for name in min_wav_duration max_wav_duration bpe_char_cover; do
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
for name in asr_config encoder decoder model optim inference_config lm_config; do find_block "${name}"; done
[[ ${nlsyms_txt} == none || -f ${nlsyms_txt} ]] || die "--nlsyms_txt ${nlsyms_txt}: no such file"
[[ -z ${text_prefix} || ${nlsyms_txt} != none ]] ||
    die "--text_prefix '${text_prefix}': its words must be in a file --nlsyms_txt, or they would be scored"
[[ -z ${pretrained_model} || -f ${pretrained_model%%:*} ]] ||
    die "--pretrained_model ${pretrained_model}: no such file: ${pretrained_model%%:*}"

# shellcheck source-path=SCRIPTDIR source=path.sh
. "${here}/path.sh"

cmd=()
add_words() { # add_words TEXT: append its words to cmd, by the shell's quoting rules, running nothing
    local word
    while IFS= read -r -d '' word; do cmd+=("${word}"); done < <(split_words "$1")
}
split_words() {
    python -c 'import shlex, sys; sys.stdout.write("".join(w + "\0" for w in shlex.split(sys.argv[1])))' "$1"
}
for name in local_data_opts asr_args inference_args lm_args lm_train_text lm_dev_text; do
    split_words "${!name}" > /dev/null 2>&1 || die "--${name} '${!name}': a quotation mark is not closed"
done
merge_config() { # merge_config OPTION...
    local blocks=() block
    for block in "${encoder}" "${decoder}" "${model}" "${optim}"; do
        [[ -z ${block} ]] || blocks+=(--block "${block}")
    done
    python -m mambaasr.bin.merge_config --base "${asr_config}" ${blocks[@]+"${blocks[@]}"} "$@"
}
decoding_lm=${use_lm}
if ${skip_eval} || (( stop_stage < 12 )); then decoding_lm=false; fi
build=() # Whether the classes can be built takes seconds: asked where a training follows.
if ! ${skip_train} && (( stage <= 11 && stop_stage >= 10 )); then build=(--build); fi
facts=$(merge_config --check="${asr_args}" ${build[@]+"${build[@]}"} --check_decoding="${inference_args}" \
    --decoding_config="${inference_config}" --decoding_lm "${decoding_lm}" --show model model_file)
if ${use_lm} && [[ -n ${lm_config} ]]; then
    python -m mambaasr.bin.merge_config --task lm --base "${lm_config}" --check="${lm_args}" \
        ${build[@]+"${build[@]}"} > /dev/null
fi
model_class=${facts%%$'\n'*}
: "${inference_asr_model:=${facts##*$'\n'}}"

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
# Another encoder may drop other utterances, so that two recipes at once must not share a folder.
: "${asr_stats_dir:=${expdir}/asr_stats_${suffix}${speed_perturb_factors:+_sp}${encoder:+_enc_$(stem "${encoder}")}}"
if [[ -z ${asr_tag} ]]; then
    asr_tag=$(stem "${asr_config}")
    # Blocks of one name in different slots are different models.
    asr_tag+=${encoder:+_enc_$(stem "${encoder}")}${decoder:+_dec_$(stem "${decoder}")}
    asr_tag+=${model:+_model_$(stem "${model}")}${optim:+_opt_$(stem "${optim}")}
    asr_tag+=_${suffix}$(plain "${asr_args// /}")${speed_perturb_factors:+_sp}
fi
: "${asr_exp:=${expdir}/asr_${asr_tag}}"
lm_suffix=${suffix#raw_}
: "${lm_stats_dir:=${expdir}/lm_stats_${lm_suffix}}"
: "${lm_tag:=$(stem "${lm_config:-lm}")_${lm_suffix}$(plain "${lm_args// /}")}"
: "${lm_exp:=${expdir}/lm_${lm_tag}}"
lm_leave_out=()
if [[ -z ${lm_train_text} ]]; then
    lm_train_text="'${raw}/${train}/text'"
    # Every speed has the same words: the original's, or else the first one's, are enough.
    kept=${factors[0]-}
    for word in ${factors[@]+"${factors[@]}"}; do if [[ ${word} =~ ^0*1(\.0*)?$ ]]; then kept=${word}; fi; done
    for word in ${factors[@]+"${factors[@]}"}; do
        if [[ ${word} != "${kept}" ]]; then lm_leave_out+=("sp${word}-"); fi
    done
fi
if [[ -z ${lm_dev_text} ]]; then lm_dev_text="'${raw}/${valid_set}/text'"; fi
if [[ -z ${inference_tag} ]]; then
    inference_tag=$(stem "${inference_config:-inference}")$(plain "${inference_args// /}")
    if ${use_lm}; then inference_tag+=_lm_$(plain "${lm_exp##*/}")_$(stem "${inference_lm}"); fi
    inference_tag+=_asr_model_$(stem "${inference_asr_model}")
fi
decode_dir=${asr_exp}/${inference_tag}
for name in asr_tag lm_tag inference_tag; do
    value=${!name}
    (( ${#value} < 200 )) || die "--${name} is too long for a file name: give a shorter one"
done
# These go into yaml values and ESPnet's "PATH,name,type", where such characters would mean
# something. They are relative paths: the folders above the recipe may be called anything.
unfit="[],:;#\"\`\$&*!|<>%{}'\\\\[]|[[:cntrl:]]"
for name in train_set valid_set test_sets datadir dumpdir expdir lang asr_tag lm_tag inference_tag \
    asr_exp asr_stats_dir lm_exp lm_stats_dir; do
    [[ ! ${!name} =~ ${unfit} ]] ||
        die "--${name} '${!name}': use letters, digits, spaces and . _ + - = / in names"
done

# --- Stages ---------------------------------------------------------------------------------------
# shellcheck source-path=SCRIPTDIR source=stages.sh
. "${here}/stages.sh"
# shellcheck source-path=SCRIPTDIR source=lm.sh
. "${here}/lm.sh"

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
if ${use_lm}; then
    for set in "${tests[@]}"; do if [[ ${set} != "${valid_set}" ]]; then break; fi; done
    : "${lm_test_text:=$(formatted "${set}")/text}"
    run_stage 6 "LM statistics" lm_statistics
    run_stage 7 "LM training" lm_training
    run_stage 8 "LM perplexity" perplexity
elif (( stage < 9 && stop_stage > 5 )) && ! ${skip_train}; then
    printf '\n== Stages 6 to 8: no language model (--use_lm false)\n'
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
exit
}
