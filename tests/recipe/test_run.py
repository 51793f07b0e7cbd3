"""The driver, in-process: options, what is refused, which stages run, what a dry run says."""

import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from recipes import NEEDED, ROOT

from mambaasr.errors import UserError
from mambaasr.recipe.configs import load_configs
from mambaasr.recipe.names import make_names
from mambaasr.recipe.options import OPTIONS, check, help_text, parse
from mambaasr.recipe.run import chosen_stages, main
from mambaasr.recipe.stages import STAGES, Recipe
from mambaasr.recipe.task import record

TEMPLATE = ROOT / "egs/TEMPLATE/asr1"
FROZEN = Path(__file__).with_name("options.txt")
LM = ["--use_lm", "true", "--lm_config", "conf/train_lm.yaml"]


@pytest.fixture(autouse=True)
def in_recipe(recipe, monkeypatch):
    monkeypatch.chdir(recipe)


def test_options_are_frozen():
    """What users type stays: ``options.txt`` has each option with its default."""
    text = "".join(
        f"--{name} {option.default if name not in ('nj', 'inference_nj') else 'CORES'}\n"
        for name, option in OPTIONS.items()
    )
    assert text == FROZEN.read_text()


def test_help_lists_every_option_with_its_value(capsys):
    assert main([str(TEMPLATE), "--nbpe", "77", "--help"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  --(\w+) ", text, re.MULTILINE) == list(OPTIONS)
    assert re.search(r"--nbpe .*\[77\]$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) < 300


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "16"], "--stage '16': stages are numbers from 1 to 15"),
        (["--stage", "0"], "stages are numbers from 1 to 15"),
        (["--stage", "ten"], "--stage 'ten'"),
        (["--stop_stage", "-1"], "--stop_stage '-1'"),
        (["--stage", "a[$(touch pwned)]"], "stages are numbers"),
        (["--skip_stages", "2 x"], "--skip_stages 'x'"),
        (["--stage", "11", "--stop_stage", "10"], "--stage 11 comes after --stop_stage 10"),
        (["--stage", "14"], "not built yet"),
        (["--score_normalizer", "whisper"], "choose one of: none whisper_english whisper_basic"),
        (["--stop_stage", "15"], "not built yet"),
        (["--stage", "6", "--stop_stage", "8"], "stages 6 to 8 are the language model's: --use_lm"),
        (["--stage", "9", "--stop_stage", "9"], "stage 9 is the n-gram model's: --use_ngram true"),
        (["--stage", "6", "--stop_stage", "9"], "stage 9 is the n-gram model's"),
        (["--ngram_num", "0"], "--ngram_num 0: must be at least 1"),
        (["--inference_args", "--ngram_weight 0.3"], "--ngram_weight 0.3 has no effect without an"),
        (["--use_lm", "true"], "--use_lm true needs --lm_config, or --lm_exp"),
        (["--lm_config", "conf/x.yaml"], "--lm_config conf/x.yaml: no such file"),
        ([*LM, "--lm_args", "--lm transformr"], "lm `transformr` is unknown; did you mean `tran"),
        ([*LM, "--lm_args", "--encoder mamba"], "there is no option --encoder"),
        (
            [*LM, "--lm_args", "--lm_conf units=3"],
            "lm_conf has no option `units`; did you mean `un",
        ),
        ([*LM, "--lm_tag", "x,y"], "--lm_tag 'x,y'"),
        ([*LM, "--lm_train_text", "'a"], "a quotation mark is not closed"),
        ([*LM, "--inference_args", "--lm_weight 0"], "the language model would not be used"),
        (["--asr_confg", "x"], "did you mean --asr_config"),
        (["--asr_args", "--config other.yaml"], "--config is the recipe's own"),
        (["--max_epoch", "3"], 'write --asr_args "--max_epoch 3"'),
        (["--beam_size=5"], 'write --inference_args "--beam_size 5"'),
        (["--lr", "0.1"], 'write --asr_args "--optim_conf lr=0.1"'),
        (["--feats_type", "mfcc"], "choose one of: raw fbank extracted"),
        (["--num_splits_asr", "0"], "--num_splits_asr 0: must be at least 1"),
        (["--num_splits_asr", "2", "--join_utterances", "9"], "needs the whole lists"),
        (["--num_splits_lm", "2"], "the training reads texts of any size as they are"),
        (["--feats_extract", "fbank"], "choose it with frontend: in the training's yaml"),
        (["--audio_format", "mp3"], "choose one of: flac wav flac.ark wav.ark"),
        (["--feats_type", "fbank"], "the features of frontend: default depend on the batch"),
        (
            ["--feats_type", "fbank", "--asr_args", "--frontend fbank --noise_scp x"],
            "noise_scp changes the audio in training",
        ),
        (
            ["--feats_type", "extracted", "--speed_perturb_factors", "0.9 1.0"],
            "--feats_type extracted: stage 2 perturbs audio",
        ),
        (
            ["--feats_type", "extracted", "--join_utterances", "20"],
            "--join_utterances 20: it needs audio in training: not with --feats_type extracted",
        ),
        (["--feats_type", "extracted", "--non_speech_ratio", "0.1"], "it needs audio in training"),
        (["--feats_type", "extracted", "--asr_args", "--input_size 9"], "the features say it"),
        (["--k2_config", "x"], "there is no k2 decoder"),
        (["--zzzz", "x"], "unknown option --zzzz"),
        (["--stage stop_stage", "x"], "unknown option"),
        (["--x[$(touch pwned)]", "1"], "unknown option"),
        (["--PATH", "x"], "unknown option"),
        (["--nj"], "--nj needs a value"),
        (["stage"], "'stage' is not an option"),
        (["--skip_train", "--stage", "3"], "--skip_train takes true or false, not '--stage'"),
        (["--nj", "two"], "--nj 'two' is not a whole number"),
        (["--ngpu", "a[$(touch pwned)]"], "is not a whole number"),
        (["--ngpu", "08"], "is not a whole number"),
        (["--nj", "0"], "--nj 0: must be at least 1"),
        (["--inference_nj", "0"], "--inference_nj 0: must be at least 1"),
        (["--nbpe", "0"], "--nbpe 0: must be at least 1"),
        (["--fs", "0"], "--fs 0: must be at least 1"),
        (["--max_wav_duration", "x"], "is not a number"),
        (["--min_wav_duration", "10.5", "--max_wav_duration", "9.5"], "10.5 is above --max_wav"),
        (["--speed_perturb_factors", "0.9 0.0"], "'0.0' is not a number above 0"),
        (["--speed_perturb_factors", "0.9,1.1"], "'0.9,1.1' is not a number above 0"),
        (["--fs", "fast"], "--fs 'fast'"),
        (["--token_type", "phn"], "choose one of: char bpe word"),
        (["--feats_normalize", "x"], "choose one of: global_mvn utterance_mvn none"),
        (["--train_set="], "--train_set is required"),
        (["--test_sets", " "], "--test_sets is required"),
        (["--pretrained_model", "old.pth:a:b"], "no such file: old.pth"),
        (["--inference_args", "--beam_sise 3"], "unrecognized arguments: --beam_sise 3"),
        (["--inference_args=--nonsense"], "unrecognized arguments: --nonsense"),
        (["--inference_config", "conf/train_asr.yaml"], "there is no option `encoder`"),
        (["--asr_args=--nonsense"], "there is no option --nonsense"),
        (
            ["--asr_config", "conf/x.yaml"],
            "--asr_config conf/x.yaml: no such file; there are: train_asr",
        ),
        (["--encoder", "conf/x.yaml"], "--encoder conf/x.yaml: no such file"),
        (["--encoder", "conf/encoder/conmamba"], "(did you mean conmamba_s or conmamba_l"),
        # A path may leave the suffix out.
        (["--asr_config", "conf/train_asr", "--asr_args=--nonsense"], "there is no option --nons"),
        (["--nlsyms_txt", "nowhere"], "--nlsyms_txt nowhere: no such file"),
        (["--text_prefix", "<|en|>"], "its words must be in a file --nlsyms_txt"),
        (["--bpe_char_cover", "all"], "--bpe_char_cover 'all' is not a number"),
        (["--bpe_char_cover", "1.5"], "--bpe_char_cover 1.5: give 0 to 1"),
        (["--language_upsampling", "2"], "--language_upsampling 2: give 0 to 1"),
        (["--join_utterances", "long"], "--join_utterances 'long' is not a number"),
        (["--non_speech_ratio", "2"], "--non_speech_ratio 2: give 0 to 1"),
        (["--bpe_input_sentence_size", "1e6"], "--bpe_input_sentence_size '1e6' is not a whole"),
        (["--asr_args", "--max_epoch '3"], "a quotation mark is not closed"),
        (["--asr_args", "--max_epochs 3"], "did you mean `--max_epoch`"),
        (["--asr_args", "--encoder mambo"], "encoder `mambo` is unknown"),
        (["--asr_args", "--decoder none"], "without a decoder CTC is alone"),
        (["--model", "conf/x.yaml"], "--model conf/x.yaml: no such file"),
        (["--encoder", "conmamba_xs"], "no such file (did you mean conmamba_s"),
        (["--encoder", f"{TEMPLATE}/conf/decoder/mamba_6.yaml"], "has neither 'encoder:'"),
        (["--inference_args", "--lm_weight 0.3 --lm_file x --oops 1"], "arguments: --oops 1"),
        (["--inference_args", "--lm_weight 0.3"], "--lm_weight 0.3 has no effect without a lang"),
        # A name alone is a block of the recipe or of TEMPLATE.
        (["--encoder", "conmamba_s", "--asr_args=--nonsense"], "there is no option --nonsense"),
        (["--optim", "cosine.yaml", "--asr_args=--nonsense"], "there is no option --nonsense"),
        (["--dumpdir", "a,b"], "--dumpdir 'a,b'"),
        (["--expdir", "a#b"], "--expdir 'a#b'"),
        (["--asr_tag", "$(touch pwned)"], "--asr_tag '$(touch pwned)'"),
        (["--asr_tag", "x" * 200], "--asr_tag is too long"),
        (["--lang", "x,y"], "--lang 'x,y'"),
    ],
)
def test_mistakes_are_refused_at_once(recipe, options, message):
    with pytest.raises(UserError) as error:
        main([str(TEMPLATE), *NEEDED, *options])
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (recipe / "exp").exists() and not (recipe / "data").exists()


def test_a_normalizer_without_its_package_is_refused_before_the_training(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(UserError, match="uv pip install whisper-normalizer"):
        main([str(TEMPLATE), *NEEDED, "--score_normalizer", "whisper_basic"])
    with pytest.raises(UserError, match="no_such.yaml"):
        main([str(TEMPLATE), *NEEDED, "--score_normalizer=gigaspeech", "--encoder=no_such.yaml"])


def test_options_in_both_forms_and_the_last_wins():
    options, _ = parse(["--nj=3", "--nj", "5", "--asr-tag=a=b", "--asr_args", "--max_epoch 1"])
    assert (options.nj, options.asr_tag, options.asr_args) == ("5", "a=b", "--max_epoch 1")
    assert re.search(r"--asr_args .*\[--max_epoch 1\]$", help_text(options), re.MULTILINE)


def test_print_options_gives_every_value(capsys):
    assert main([str(TEMPLATE), *NEEDED, "--print_options", "true"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == list(OPTIONS)
    assert (printed["train_set"], printed["use_lm"]) == ("train", False)


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ([], [1, 2, 3, 4, 5, 10, 11, 12, 13]),
        (["--use_lm", "true", "--lm_exp", "exp/x"], [*range(1, 9), 10, 11, 12, 13]),
        (["--stage", "4", "--stop_stage", "10"], [4, 5, 10]),
        (["--use_ngram", "true", "--stage", "5"], [5, 9, 10, 11, 12, 13]),
        ([*LM, "--use_ngram", "true", "--skip_eval", "true"], list(range(1, 12))),
        (["--skip_data_prep", "true", "--skip_eval", "true"], [10, 11]),
        (["--skip_train", "true", "--skip_stages", "2 13"], [1, 3, 4, 5, 12]),
    ],
)
def test_chosen_stages(options, stages):
    assert list(chosen_stages(check(parse([*NEEDED, *options])[0], TEMPLATE))) == stages


def test_dry_run_touches_nothing(recipe, capsys):
    before = sorted(recipe.rglob("*"))
    assert main([str(TEMPLATE), *NEEDED, *LM, "--dry_run", "true"]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^== Stage (\d+)", text, re.MULTILINE) == list(
        map(str, [*range(1, 9), 10, 11, 12, 13])
    )
    assert "data: would run: it was not done yet\n    local/data.sh --nj=" in text
    assert "decoding of test: would run: " in text and re.search(r"^free +\d", text, re.MULTILINE)
    assert sorted(recipe.rglob("*")) == before


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ("4", "dump/raw/org/train/wav.scp: no such file: run stage 3 (format audio) first"),
        ("5", "dump/raw/train/text: no such file: run stage 4 (filter) first"),
        ("10", "dump/raw/train/wav.scp: no such file: run stage 4 (filter) first"),
        ("12", "no such model (stage 11 makes them); there are: none"),
        ("13", "dump/raw/test/text: no such file: run stage 3 (format audio) first"),
    ],
)
def test_what_is_missing_names_the_stage_that_makes_it(stage, message):
    with pytest.raises(UserError, match=re.escape(message)):
        main([str(TEMPLATE), *NEEDED, "--stage", stage, "--stop_stage", stage])


def yielded(number, *options):
    """Return what a stage yields with these options, and the names."""
    o = check(parse([*NEEDED, *options])[0], TEMPLATE)
    asr, lm = load_configs(o, False, False)
    n = make_names(o, asr.model_file)
    return list(STAGES[number][1](o, n, Recipe(TEMPLATE, asr, lm))), n


def test_an_ngram_model_and_its_decoding(recipe):
    def stage(number, *more):
        return yielded(number, "--use_ngram", "true", *more)[0]

    text, task = stage(9)
    # The text is that of stage 6, with its marker: neither stage makes it twice.
    assert text == stage(6, *LM)[0] and text.stage == 6
    assert task.outputs == ["exp/ngram_char/3gram.arpa"]
    assert shlex.join(task.command[3:]) == (
        "--text dump/raw/lm_train.txt --token_list data/token_list/char/tokens.txt "
        "--token_type char --ngram_num 3 --out exp/ngram_char/3gram.arpa"
    )
    (decoding,) = stage(12)
    assert decoding.command[decoding.command.index("--ngram_file") + 1] == task.outputs[0]
    assert "inference_ngram_ngram_char_3gram_asr_model" in decoding.outputs[0]
    assert "--bpemodel" in stage(9, "--token_type", "bpe")[1].command
    # Other texts are another model's; a model of one's own is taken as it is.
    other = stage(9, "--ngram_num", "4", "--lm_train_text", "other")[1].outputs[0]
    assert re.fullmatch(r"exp/ngram_char_\w{8}/4gram.arpa", other)
    own = ["--ngram_exp", "exp/own", "--inference_ngram", "big.arpa"]
    assert stage(9, *own) == ["--inference_ngram: exp/own/big.arpa is taken as it is"]
    assert stage(12, *own)[0].needs.keys() >= {"exp/own/big.arpa"}
    assert "_ngram_own_big_asr_model" in stage(12, *own)[0].outputs[0]
    assert "--ngram_file" not in stage(12, "--use_ngram", "false")[0].command


def test_what_epochs_draw_makes_an_experiment_of_its_own(recipe):
    def training(*more):
        return [each for each in yielded(11, *more)[0] if not isinstance(each, str)]

    (plain,) = training()
    assert not any(word.startswith("--join") for word in plain.command)
    folder = recipe / "data/train"
    folder.mkdir(parents=True)
    (folder / "segments").touch()
    (task,) = training("--join_utterances", "20")
    said = shlex.join(task.command)
    assert "--join_utterances 20 --join_utt2spk dump/raw/train/utt2spk" in said
    assert "--join_segments data/train/segments" in said and "--join_prefix" not in said
    where = {x.command[x.command.index("--output_dir") + 1] for x in (plain, task)}
    assert sorted(where) == sorted([min(where), f"{min(where)}_join20"])
    (task,) = training("--language_upsampling", "0.5")
    said = shlex.join(task.command)
    assert "--language_upsampling 0.5 --upsampling_utt2lang dump/raw/train/utt2lang" in said
    assert f"--output_dir {min(where)}_lang0.5" in said


def test_tokens_of_another_model_are_taken_as_they_are(recipe):
    """The list is read where it lies; what is written of the sets lies with this run's names."""
    words = ["--token_listdir", "data/token_list/char", "--lang", "cy"]
    with pytest.raises(UserError, match="no such file: data/token_list/char/tokens.txt"):
        yielded(5, *words)
    folder = recipe / "data/token_list/char"
    folder.mkdir(parents=True)
    (folder / "tokens.txt").write_text("<blank>\n<unk>\na\n<sos/eos>\n")
    said = "--token_listdir: data/token_list/char/tokens.txt is taken as it is"
    assert yielded(5, *words)[0] == [said]
    text = recipe / "dump/raw/org/train/text"
    text.parent.mkdir(parents=True)
    text.write_text("u1 a\n")
    (_, task), n = yielded(5, *words)
    assert task.outputs == ["data/cy_token_list/char/sets.txt"]
    assert "--token_list data/token_list/char/tokens.txt" in shlex.join(task.command)
    assert n.token_list == "data/token_list/char/tokens.txt"


def test_how_audio_or_features_are_stored(recipe):
    """What ESPnet is told to read, and under which names."""

    def words(number, *more):
        o = check(parse([*NEEDED, "--asr_args", "--frontend fbank", *more])[0], TEMPLATE)
        asr, lm = load_configs(o, False, False)
        found = STAGES[number][1](o, make_names(o, asr.model_file), Recipe(TEMPLATE, asr, lm))
        return [shlex.join(x.command) for x in found if not isinstance(x, str)]

    (data,) = words(11)
    assert "dump/raw/train/wav.scp,speech,sound" in data and "exp/asr_train_asr_raw_char" in data
    assert "--audio_format" not in words(2, "--speed_perturb_factors", "0.9")[0]
    arks = ["--audio_format", "flac.ark"]
    assert "--audio_format flac.ark" in words(2, "--speed_perturb_factors", "0.9", *arks)[0]
    assert all("--audio_format flac.ark" in each for each in words(3, *arks))
    assert "dump/raw/train/wav.scp,speech,kaldi_ark" in words(11, *arks)[0]
    assert "dump/raw/test/wav.scp,speech,kaldi_ark" in words(12, *arks)[0]
    for kind, fold in (("fbank", "80000"), ("extracted", "800")):
        chosen = ["--feats_type", kind]
        first, *_ = words(3, *chosen)
        assert "store_features data/train dump/" + kind in first and f"--feats_type {kind}" in first
        assert ("--config" in first) == (kind == "fbank")
        assert all(f"dump/{kind}" in each and "--fs 16000" in each for each in words(4, *chosen))
        features, statistics = words(10, *chosen)
        assert f"--train dump/{kind}/train/feats.scp" in features
        assert f"--output_dir exp/asr_stats_{kind}_char" in statistics
        (training,) = words(11, *chosen)
        assert f"dump/{kind}/valid".replace("valid", "dev") in training
        assert f"dump/{kind}/train/feats.scp,speech,kaldi_ark" in training
        assert f"--fold_length {fold} " in training and f"exp/asr_train_asr_{kind}_char" in training
        (decoding,) = words(12, *chosen)
        assert f"dump/{kind}/test/feats.scp,speech,kaldi_ark" in decoding
        assert f"--key_file dump/{kind}/test/feats.scp" in decoding
        raw, stored = (words(10, *more)[0].split("--output_dir ")[1] for more in ([], chosen))
        assert raw != stored


def test_a_training_set_in_parts(recipe):
    def tasks(*more):
        o = check(parse([*NEEDED, *more])[0], TEMPLATE)
        asr, lm = load_configs(o, False, False)
        n = make_names(o, asr.model_file)
        return [x for x in STAGES[11][1](o, n, Recipe(TEMPLATE, asr, lm)) if not isinstance(x, str)]

    (plain,) = tasks()
    assert "--multiple_iterator" not in plain.command
    splits, training = tasks("--num_splits_asr", "3")
    lists = ["dump/raw/train/wav.scp", "dump/raw/train/text"]
    lists += [f"exp/asr_stats_raw_char/train/{x}" for x in ("speech_shape", "text_shape.char")]
    assert splits.command[3:] == [
        *("--scps", *lists, "--keys", lists[2], "--num_splits", "3"),
        *("--output_dir", "exp/asr_stats_raw_char/splits3"),
    ]
    said = shlex.join(training.command)
    assert "--multiple_iterator true" in said and set(lists) <= set(training.inputs)
    folder = "exp/asr_stats_raw_char/splits3"
    assert f"train_data_path_and_name_and_type {folder}/wav.scp,speech,sound" in said
    assert f"--train_shape_file {folder}/text_shape.char" in said
    assert "valid_data_path_and_name_and_type dump/raw/dev/wav.scp,speech,sound" in said
    assert not [each for each in lists if each in said]


def test_task_tokens_of_the_training_are_read_in_decoding(recipe, tmp_path):
    """With a language in them only where the test set knows its languages."""
    symbols = tmp_path / "symbols"
    symbols.write_text("<|en|>\n<|transcribe|>\n")

    def decoding(prefix):
        found, n = yielded(12, "--text_prefix", prefix, "--nlsyms_txt", str(symbols))
        *notes, task = found
        return notes, task.command, n

    def after(command, option):
        return command[command.index(option) + 1]

    notes, command, n = decoding("<|transcribe|>")
    assert not notes and after(command, "--prompt") == "<|transcribe|>"
    assert "--utt2lang" not in command
    (note,), command, _ = decoding("<|{lang}|>")
    assert "no utt2lang" in note and "--prompt" not in command
    folder = Path(n.formatted(n.tests[0]))
    folder.mkdir(parents=True)
    (folder / "utt2lang").write_text("a en\n")
    notes, command, _ = decoding("<|{lang}|>")
    assert not notes and after(command, "--prompt") == "<|{lang}|>"
    assert after(command, "--utt2lang") == f"{folder}/utt2lang"


def test_statistics_follow_all_but_what_is_known_not_to_matter(recipe):
    (recipe / "conf/optim.yaml").write_text("optim: sgd\noptim_conf:\n  lr: 0.1\n")
    (recipe / "conf/lid.yaml").write_text("model: multilingual\nmodel_conf:\n  lid_weight: 0.3\n")

    def depends_on(*words):
        (features, task), _ = yielded(10, *words)
        (inputs,) = set(task.inputs) & task.generated.keys()
        return str(features.folder), task.generated[inputs]

    plain = depends_on()
    args = "--max_epoch 3 --decoder mamba --specaug specaug --encoder_conf dropout_rate=0.2"
    args += " --model_conf ctc_weight=0.2"
    assert depends_on("--optim", "conf/optim.yaml", "--asr_args", args) == plain
    assert depends_on("--model", "conf/lid.yaml") == plain
    for args in ("--frontend_conf n_mels=40", "--encoder_conf input_layer=linear", "--g2p none",
                 "--model_conf ctc_weight=0", "--speech_volume_normalize 1.0"):  # fmt: skip
        assert depends_on("--asr_args", args)[1] != plain[1], args
        # Only what changes the features makes other ones.
        same = args.split()[0] not in ("--frontend_conf", "--speech_volume_normalize")
        assert (depends_on("--asr_args", args)[0] == plain[0]) == same, args


def test_more_gpus_than_there_are(recipe, monkeypatch):
    import torch

    count = torch.cuda.device_count() + 1
    with pytest.raises(UserError, match=f"--ngpu {count}: torch sees {count - 1} GPUs here"):
        main([str(TEMPLATE), *NEEDED, "--ngpu", str(count)])
    assert not (recipe / "data").exists()
    # The machine that only prepares needs none.
    ran = []
    monkeypatch.setattr("mambaasr.recipe.run.run", lambda task, *_: ran.append(task.stage))
    words = ["--ngpu", str(count), "--stage", "10", "--stop_stage", "10"]
    assert main([str(TEMPLATE), *NEEDED, *words]) == 0 and ran == [10, 10]


def test_a_run_ends_with_the_table_of_error_rates(recipe, monkeypatch, capsys):
    monkeypatch.setattr("mambaasr.recipe.run.run", lambda task, *_: 0)
    exp = recipe / "exp/asr_train_asr_raw_char"
    (exp / "images").mkdir(parents=True)
    (exp / "RESULTS.md").write_text("# asr\n\n| the table |\n\n## Origin\n\n- of it\n")
    assert main([str(TEMPLATE), *NEEDED, "--stage", "13"]) == 0
    last = capsys.readouterr().out.splitlines()[-6:]
    assert last[:2] == [f"curves   exp/{exp.name}/images", f"results  exp/{exp.name}/RESULTS.md"]
    assert last[2:] == ["", "# asr", "", "| the table |"]
    (exp / "valid.acc.ave.pth").touch()
    main([str(TEMPLATE), *NEEDED, "--stage", "13"])
    assert f"use it   mambaasr transcribe RECORDING --model exp/{exp.name}\n" in (
        capsys.readouterr().out
    )


def test_what_is_worth_another_try_lets_the_stage_end_and_no_other_begin(recipe, monkeypatch):
    ran = []

    def run(task, *_):
        ran.append((task.stage, task.title))
        return 75 if task.title == "decoding of test" else 0

    monkeypatch.setattr("mambaasr.recipe.run.run", run)
    words = ["--test_sets", "test dev", "--stage", "12"]
    assert main([str(TEMPLATE), *NEEDED, *words]) == 75
    assert ran == [(12, "decoding of test"), (12, "decoding of dev")]


def test_two_runs_with_other_texts_share_no_file(recipe, capsys):
    """The folder's first run has the plain names, as experiments of before have."""

    def joined(*more):
        return [replace(task, stage=6) for task in yielded(6, *LM, *more)[0]]

    first = joined()
    assert [task.outputs for task in first[:2]] == [
        ["dump/raw/lm_train.txt"],
        ["dump/raw/lm_dev.txt"],
    ]
    # Both may have begun at once.
    assert joined("--lm_train_text", "other")[0].outputs != first[0].outputs
    for task in first[:2]:
        task.marker.parent.mkdir(parents=True, exist_ok=True)
        task.marker.write_text(json.dumps(record(task) | {"outputs": {}}))
    assert joined() == first
    for more in (["--lm_train_text", "other"], ["--train_set", "other"], ["--valid_set", "x"]):
        other = joined(*more)
        for mine, task in zip(first, other, strict=True):
            assert mine.marker != task.marker and not {*mine.outputs} & {*task.outputs}
    assert joined("--speed_perturb_factors", "0.9 1.0")[0].outputs != first[0].outputs
