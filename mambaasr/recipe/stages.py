"""The stages: each one function that yields the tasks of which it consists.

A stage gets the checked options ``o`` and the names ``n``. It yields a :class:`Task` for each
command, or a text for the user.
"""

import hashlib
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mambaasr.data.prefix import LANG
from mambaasr.errors import UserError
from mambaasr.recipe.configs import TrainingConfig
from mambaasr.recipe.devices import count_gpus
from mambaasr.recipe.names import TEXT_FILES, Names
from mambaasr.recipe.options import Options, text_of
from mambaasr.recipe.task import DEVICES, Task


@dataclass(frozen=True)
class Recipe:
    """What the stages know: where the template lies, and the trainings' configs."""

    template: Path
    asr: TrainingConfig
    lm: TrainingConfig | None = None


Stage = Callable[[Options, Names, Recipe], Iterator[Task | str]]
STAGES: dict[int, tuple[str, Stage]] = {}

# All that a data folder is known by; some may be absent.
ALL_DATA_FILES = ("wav.scp", *TEXT_FILES, "segments", "utt2lang", "utt2num_samples")
# What the audio is made of, besides.
AUDIO_FILES = (*ALL_DATA_FILES, "reco2file_and_channel")
# The same of a folder of features.
FEATURE_FILES = ("feats.scp", *TEXT_FILES, "utt2lang", "utt2num_samples", "feats_shape")
# Of a training's config these do not change its statistics. Of the encoder its class and input
# layer matter: they say whether a text fits its frames; and whether there is CTC, for which it
# must fit.
WITHOUT_STATISTICS = """
    encoder_conf.* decoder* ctc_conf* specaug* normalize* optim* scheduler* exclude_weight_decay*
    init init_param freeze_param ignore_init_mismatch max_epoch patience accum_grad grad_* batch_*
    valid_batch_* num_iters_per_epoch seed unused_parameters use_amp train_dtype ngpu num_workers
    cudnn_* log_* num_att_plot use_tensorboard use_wandb wandb_* keep_* nbest_*
    best_model_criterion val_scheduler_criterion early_stopping_criterion resume
    model_conf.lsm_weight model_conf.length_normalized_loss model_conf.report_* model
    model_conf.languages model_conf.conditioning model_conf.families model_conf.lid_weight
""".split()


def stage(number: int, title: str) -> Callable[[Stage], Stage]:
    """Register a function as the stage of a number."""

    def register(function: Stage) -> Stage:
        STAGES[number] = title, function
        return function

    return register


def command(name: str, *words: str) -> list[str]:
    """Return the words that call one of the package's commands."""
    return ["python", "-m", f"mambaasr.bin.{name}", *words]


def in_folder(folder: str, *names: str) -> list[str]:
    """Return the paths of files in a folder."""
    return [f"{folder}/{name}" for name in names]


def made_by(number: int, *paths: str) -> dict[str, str]:
    """Return what a task needs -> which stage makes it."""
    return dict.fromkeys(paths, f"no such file: run stage {number} ({STAGES[number][0]}) first")


# $CORPUS, ${CORPUS}, os.environ["CORPUS"], os.getenv("CORPUS")
_READS = re.compile(rb"""(?:\$\{?|environ(?:\.get)?[\[(]["']|getenv\(["'])([A-Z_]\w*)""")
# Scripts read these too; they decide no corpus.
_OF_THE_SHELL = set("HOME HOSTNAME LANG LC_ALL OLDPWD PATH PWD SHELL TMPDIR USER".split())


@stage(1, "data preparation")
def prepare_data(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    words = o.words("local_data_opts")
    variables, listed = corpus_variables(Path("db.sh"), recipe.template / "db.sh")
    # What db.sh says of the corpora that local/ asks for, and those that are named by hand.
    named = (re.sub("^--[^=]*=", "", word) for word in words)
    corpora = [
        *(variables[name] for name in listed),
        *(word for word in named if not word.startswith("--")),
    ]
    place = [] if o.datadir == "data" else ["--data_dir", o.datadir]
    sets = (o.train_set, n.valid, *n.tests)
    yield Task(
        "data",
        ["local/data.sh", f"--nj={o.nj}", *place, *words],
        n.datadir,
        inputs=["local"],
        programs=Path("local"),
        variables=variables,
        corpora=list(filter(None, corpora)),
        # check_data --fix mends these folders in place; that must last.
        keep_outputs=True,
        outputs=[path for name in sets for path in in_folder(n.data(name), *n.data_files(False))],
    )


def corpus_variables(*files: Path) -> tuple[dict[str, str], set[str]]:
    """Return the variables that the recipe's ``local`` reads, with their values.

    Besides, the names of those that are corpora.

    These are the ones of the recipe's and the template's ``db.sh`` that it names, and what else
    it takes from the environment and finds there. ``asr.sh`` has read the files, so all values are
    those of the environment.

    Args:
        files: each ``db.sh``, which may be absent.
    """
    sources = [path.read_bytes() for path in sorted(Path("local").rglob("*")) if path.is_file()]
    said = {word.decode() for text in sources for word in re.findall(rb"\w+", text)}
    read = {word.decode() for text in sources for word in _READS.findall(text)}
    listed = set()
    for db in filter(Path.is_file, files):
        text = db.read_text(encoding="utf-8")
        listed.update(re.findall(r"^ *(?:export )?([A-Za-z_]\w*)=", text, re.MULTILINE))
    names = (listed & said) | (read & os.environ.keys() - _OF_THE_SHELL)
    return {name: os.environ.get(name, "") for name in sorted(names)}, listed & said


@stage(2, "speed perturbation")
def perturb_speed(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    if not o.speed_perturb_factors.split():
        yield "no --speed_perturb_factors: nothing to do"
        return
    source, target = n.data(o.train_set), n.data(n.train)
    yield Task(
        f"speed perturbation of {o.train_set}",
        command("perturb_speed", source, target, "--factors", o.speed_perturb_factors)
        + ["--nj", o.nj, "--bad_audio", o.bad_audio, *_channel(o)]
        # Unless asked for nothing is given, and what was made before stays right.
        + (["--audio_format", o.audio_format] if o.audio_format.endswith(".ark") else []),
        n.datadir,
        inputs=in_folder(source, *AUDIO_FILES),
        outputs=in_folder(target, *n.data_files(False)),
    )


@stage(3, "format audio")
def format_audio(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    for name in dict.fromkeys((n.train, n.valid, *n.tests)):
        source, target = n.data(name), n.formatted(name)
        # An utterance whose audio is bad stays in the error rate.
        keep = ["--keep_bad"] if name in n.tests else []
        common = [source, target, "--nj", o.nj, "--bad_audio", o.bad_audio, *keep]
        if o.feats_type == "raw":
            more = ["--fs", o.fs, "--audio_format", o.audio_format, *_channel(o)]
            yield Task(
                f"format audio of {name}",
                command("format_audio", *common, *more),
                n.dumpdir,
                inputs=in_folder(source, *AUDIO_FILES),
                outputs=in_folder(target, *n.data_files(), "utt2num_samples"),
            )
            continue
        words, generated = command("store_features", *common, "--feats_type", o.feats_type), {}
        if o.feats_type == "fbank":
            config = f"{n.raw}/.stages/frontend.yaml"
            generated[config] = recipe.asr.frontend
            words += ["--config", config, "--fs", o.fs, *_channel(o)]
        yield Task(
            f"features of {name}",
            words,
            n.raw,
            generated=generated,
            inputs=in_folder(source, *(AUDIO_FILES if generated else FEATURE_FILES)),
            outputs=in_folder(target, *n.data_files(), "feats_shape"),
        )


@stage(4, "filter")
def filter_sets(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    prefix = []
    if o.text_prefix:
        prefix = ["--text_prefix", o.text_prefix, "--nlsyms_txt", o.nlsyms_txt]
    for name in (n.train, n.valid):
        source, target = n.formatted(name), n.filtered(name)
        # Unless asked for nothing is given, and what was filtered before stays right.
        with_silence = float(o.non_speech_ratio) > 0 and name == n.train
        silence = ["--non_speech_ratio", o.non_speech_ratio] if with_silence else []
        rate = [] if o.feats_type == "raw" else ["--fs", o.fs]
        yield Task(
            f"filter {name}",
            command("filter_data", source, target, *prefix, *silence, *rate)
            + ["--min_wav_duration", o.min_wav_duration, "--max_wav_duration", o.max_wav_duration],
            n.dumpdir if o.feats_type == "raw" else n.raw,
            inputs=in_folder(source, *(FEATURE_FILES if rate else ALL_DATA_FILES)),
            outputs=in_folder(target, *n.data_files()),
            needs=made_by(3, f"{source}/{n.scp}"),
        )


@stage(5, "token list")
def make_tokens(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    if o.token_listdir:
        for path in (n.token_list, n.bpemodel):
            if path != "none" and not os.path.isfile(path):
                raise UserError(f"--token_listdir {o.token_listdir}: no such file: {path}")
        yield f"--token_listdir: {n.token_list} is taken as it is"
    else:
        yield _token_list(o, n)
    there = [
        n.formatted(name)
        for name in dict.fromkeys((n.train, n.valid, *n.tests))
        if os.path.isfile(f"{n.formatted(name)}/text")
    ]
    if n.formatted(n.train) not in there:
        return
    words = command("check_sets", "--train", there[0], "--sets", *there[1:])
    words += ["--token_list", n.token_list, "--token_type", o.token_type]
    words += ["--bpemodel", n.bpemodel] if o.token_type == "bpe" else []
    words += ["--bpe_nlsyms", o.bpe_nlsyms] if o.bpe_nlsyms else []
    yield Task(
        f"check of the sets with {n.tokens}",
        [*words, *_nlsyms(o), "--output", n.sets_report],
        str(Path(n.sets_report).parent.parent),
        inputs=[path for set_ in there for path in in_folder(set_, "text", "utt2spk", "audio.tsv")],
        outputs=[n.sets_report],
    )


def _token_list(o: Options, n: Names) -> Task:
    words = command("make_tokens", "--token_type", o.token_type, "--out", n.token_dir)
    words += ["--text", f"{n.filtered(n.train)}/text"]
    outputs = [n.token_list]
    if o.token_type == "bpe":
        words += ["--nbpe", o.nbpe, "--bpemode", o.bpemode]
        words += ["--character_coverage", o.bpe_char_cover]
        words += ["--input_sentence_size", o.bpe_input_sentence_size]
        words += ["--byte_fallback"] if o.bpe_byte_fallback else []
        words += ["--bpe_nlsyms", o.bpe_nlsyms] if o.bpe_nlsyms else []
        words += ["--text_prefix", o.text_prefix] if o.text_prefix else []
        outputs.append(n.bpemodel)
    words += _nlsyms(o)
    folder = str(Path(n.token_dir).parent)
    needs = made_by(4, f"{n.filtered(n.train)}/text")
    return Task(f"token list {n.tokens}", words, folder, outputs=outputs, needs=needs)


@stage(6, "LM statistics")
def lm_statistics(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    if recipe.lm is None:
        yield _lm_as_it_is(n)
        return
    for kind in ("train", "valid"):
        yield _joined_text(n, kind)
    inputs = f"{n.lm_stats_dir}/.stages/inputs.yaml"
    words = ["python", "-m", *_lm_training(o, n), "--collect_stats", "true"]
    words += ["--output_dir", n.lm_stats_dir]
    words += ["--train_shape_file", _lm_text(n, "train")]
    words += ["--valid_shape_file", _lm_text(n, "valid")]
    yield Task(
        "statistics of the texts",
        [*words, "--config", o.lm_config, *o.words("lm_args")],
        n.lm_stats_dir,
        # Only what makes tokens of a text matters here: models share one folder.
        generated={inputs: recipe.lm.reduced(["*"], ["cleaner", "g2p", "use_preprocessor"])},
        recorded=len(words),
        inputs=[inputs],
        outputs=_shapes(n.lm_stats_dir, f"text_shape.{o.token_type}"),
        needs=made_by(5, n.token_list),
    )


@stage(7, "LM training")
def lm_training(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    if recipe.lm is None:
        yield _lm_as_it_is(n)
        return
    words = [*launcher(o), *_lm_training(o, n), *_devices(o), "--config", o.lm_config]
    words += ["--resume", "true", "--fold_length", "150", "--output_dir", n.lm_exp]
    for kind in ("train", "valid"):
        words += [f"--{kind}_shape_file", f"{n.lm_stats_dir}/{kind}/text_shape.{o.token_type}"]
    words += o.words("lm_args")
    task = _training("training of the language model", words, n.lm_exp, recipe.lm)
    task.needs |= made_by(6, f"{n.lm_stats_dir}/train/text_shape.{o.token_type}")
    yield task


@stage(8, "LM perplexity")
def perplexity(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    out = f"{n.lm_exp}/perplexity_test"
    yield Task(
        "perplexity",
        command("lm_calc_perplexity", "--train_config", f"{n.lm_exp}/config.yaml")
        + ["--model_file", n.lm_model, "--output_dir", out, "--ngpu", str(int(int(o.ngpu) > 0))]
        + ["--data_path_and_name_and_type", f"{n.lm_text['test']},text,text"],
        out,
        needs={n.lm_model: no_model(n.lm_model, 7)},
        inputs=[n.bpemodel],
        outputs=in_folder(out, "ppl", "perplexity.json"),
    )


@stage(9, "n-gram model")
def ngram(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    if o.inference_ngram:
        yield f"--inference_ngram: {n.ngram_model} is taken as it is"
        return
    yield _joined_text(n, "train")
    words = command("ngram_train", "--text", _lm_text(n, "train"), "--token_list", n.token_list)
    words += ["--token_type", o.token_type, *_nlsyms(o), "--ngram_num", o.ngram_num]
    words += ["--bpemodel", n.bpemodel] if o.token_type == "bpe" else []
    yield Task(
        f"{o.ngram_num}-gram model",
        [*words, "--out", n.ngram_model],
        n.ngram_exp,
        # The command takes kenlm's program where there is one.
        variables={"lmplz": shutil.which("lmplz") or ""},
        outputs=[n.ngram_model],
        needs=made_by(5, n.token_list),
    )


@stage(10, "statistics")
def statistics(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    # Experiments with one front end share what is slow, the pass over all audio.
    said = f"{recipe.asr.frontend} {o.fs}" + ("" if o.feats_type == "raw" else o.feats_type)
    digest = hashlib.sha256(said.encode()).hexdigest()[:8]
    features = f"{o.expdir}/feats_stats_{n.train}_{digest}"
    frontend = f"{features}/.stages/frontend.yaml"
    words = command("feature_statistics", "--config", frontend, "--fs", o.fs, "--nj", o.nj)
    for kind, name in _sets(n):
        words += [f"--{kind}", f"{n.filtered(name)}/{n.scp}"]
    yield Task(
        "features",
        [*words, "--output_dir", features],
        features,
        generated={frontend: recipe.asr.frontend},
        # Absent beside features that are the user's.
        inputs=[f"{n.filtered(name)}/utt2num_samples" for _, name in _sets(n)],
        outputs=_shapes(features, "speech_shape", "feats_lengths", "feats_stats.npz"),
        needs=_for_training(n),
    )
    folder = f"{n.asr_stats_dir}/.stages"
    config, inputs = f"{folder}/train.yaml", f"{folder}/inputs.yaml"
    words = ["python", "-m", *_asr_training(o, n), "--collect_stats", "true"]
    words += ["--normalize", "none", "--output_dir", n.asr_stats_dir]
    for kind, _ in _sets(n):
        words += [f"--{kind}_shape_file", f"{features}/{kind}/speech_shape"]
    # Experiments that differ only in what is known not to matter here share one folder.
    reduced = recipe.asr.reduced(
        WITHOUT_STATISTICS, ["encoder_conf.input_layer"], ["model_conf.ctc_weight"]
    )
    yield Task(
        "statistics",
        [*words, "--config", config, *o.words("asr_args")],
        n.asr_stats_dir,
        generated={config: recipe.asr.text, inputs: reduced},
        recorded=len(words),
        inputs=[*_shapes(features, "feats_lengths", "feats_stats.npz"), inputs],
        outputs=_shapes(n.asr_stats_dir, "speech_shape", f"text_shape.{o.token_type}")
        + [f"{n.asr_stats_dir}/train/feats_stats.npz"],
        needs=_for_training(n),
    )


@stage(11, "training")
def train(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    config, stats = f"{n.asr_exp}/.stages/train.yaml", n.asr_stats_dir
    if o.ngpu == "0" and count_gpus():
        yield "a GPU is here and not used: --ngpu 1 --gpu_inference true"
    yield f"log: {n.asr_exp}/train.log"
    words = [*launcher(o), *_asr_training(o, n), *_devices(o)]
    # Samples, or frames where nothing says how many samples they were.
    fold = "800" if o.feats_type == "extracted" else "80000"
    words += ["--config", config, "--resume", "true", "--fold_length", fold]
    words += ["--fold_length", "150", "--output_dir", n.asr_exp]
    words += ["--ignore_init_mismatch", text_of(o.ignore_init_mismatch)]
    words += ["--normalize", o.feats_normalize]
    for kind, _ in _sets(n):
        for shape in ("speech_shape", f"text_shape.{o.token_type}"):
            words += [f"--{kind}_shape_file", f"{stats}/{kind}/{shape}"]
    if o.feats_normalize == "global_mvn":
        words += ["--normalize_conf", f"stats_file={stats}/train/feats_stats.npz"]
    if o.pretrained_model:
        words += ["--init_param", o.pretrained_model]
    if recipe.asr.model == "multilingual":
        for kind, name in _sets(n):
            words += _data(kind, f"{n.filtered(name)}/utt2lang,lang,text")
    if float(o.language_upsampling) != 1:
        words += ["--language_upsampling", o.language_upsampling]
        words += ["--upsampling_utt2lang", f"{n.filtered(n.train)}/utt2lang"]
    splits = None
    if int(o.num_splits_asr) > 1:
        splits = _splits(o, n, recipe)
        yield splits
        words = _split_words(words, splits) + ["--multiple_iterator", "true"]
    if float(o.join_utterances):
        words += ["--join_utterances", o.join_utterances]
        words += ["--join_utt2spk", f"{n.filtered(n.train)}/utt2spk"]
        segments = f"{n.data(o.train_set)}/segments"
        words += ["--join_segments", segments] if os.path.isfile(segments) else []
        prefix = len(o.text_prefix.split())
        words += ["--join_prefix", str(prefix)] if prefix else []
    task = _training("training", [*words, *o.words("asr_args")], n.asr_exp, recipe.asr)
    task.generated[config] = recipe.asr.text
    task.needs |= _for_training(n) | made_by(10, f"{stats}/train/speech_shape")
    if splits:
        # What stands in the parts; folders count by all that is in them.
        task.inputs += splits.inputs
    yield task


def _splits(o: Options, n: Names, recipe: Recipe) -> Task:
    """What splits the lists of the training set."""
    data, stats = n.filtered(n.train), f"{n.asr_stats_dir}/train"
    lists = in_folder(data, n.scp, "text")
    lists += [f"{data}/utt2lang"] if recipe.asr.model == "multilingual" else []
    lists += in_folder(stats, "speech_shape", f"text_shape.{o.token_type}")
    out = f"{n.asr_stats_dir}/splits{o.num_splits_asr}"
    return Task(
        f"{o.num_splits_asr} parts of {n.train}",
        command("split_data", "--scps", *lists, "--keys", f"{stats}/speech_shape")
        + ["--num_splits", o.num_splits_asr, "--output_dir", out],
        n.asr_stats_dir,
        inputs=lists,
        outputs=[f"{out}/{Path(path).name}/num_splits" for path in lists],
        needs=made_by(10, f"{stats}/speech_shape"),
    )


def _split_words(words: list[str], splits: Task) -> list[str]:
    """Return a training's words with the folders of parts in place of the training set's lists."""
    folders = {
        path: str(Path(out).parent) for path, out in zip(splits.inputs, splits.outputs, strict=True)
    }
    found = []
    for word in words:
        path, comma, rest = word.partition(",")
        found.append(folders.get(path, path) + comma + rest)
    return found


@stage(12, "decoding")
def decode(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    needs = {n.asr_model: no_model(n.asr_model, 11)}
    words = command("asr_inference", "--asr_train_config", f"{n.asr_exp}/config.yaml")
    words += ["--asr_model_file", n.asr_model, "--nj", o.inference_nj]
    words += ["--ngpu", "1" if o.gpu_inference else "0"]
    words += ["--config", o.inference_config] if o.inference_config else []
    words += ["--bpemodel", n.bpemodel] if o.token_type == "bpe" else []
    if o.use_lm:
        needs[n.lm_model] = no_model(n.lm_model, 7)
        words += ["--lm_train_config", f"{n.lm_exp}/config.yaml", "--lm_file", n.lm_model]
    if o.use_ngram:
        needs |= made_by(9, n.ngram_model)
        words += ["--ngram_file", n.ngram_model]
    if o.gpu_inference and (gpus := max(1, count_gpus())) < int(o.inference_nj):
        yield f"{o.inference_nj} jobs share {gpus} GPU(s), and each holds the model"
    for name in n.tests:
        data, out = n.formatted(name), n.decoded(name)
        own = ["--data_path_and_name_and_type", n.speech(data)]
        own += ["--key_file", f"{data}/{n.scp}", "--output_dir", out]
        known = recipe.asr.model == "multilingual" or os.path.isfile(f"{data}/utt2lang")
        if recipe.asr.model == "multilingual" or (LANG in o.text_prefix and known):
            own += ["--utt2lang", f"{data}/utt2lang"]
        if o.text_prefix and (known or LANG not in o.text_prefix):
            own += ["--prompt", o.text_prefix]
        elif o.text_prefix:
            yield f"{name} has no utt2lang: the model finds the tokens of --text_prefix by itself"
        yield Task(
            f"decoding of {name}",
            [*words, *own, *o.words("inference_args")],
            out,
            needs=needs | made_by(3, f"{data}/{n.scp}"),
            outputs=in_folder(out, "text", "decode.json"),
            scratch=[f"{out}/chunks"],
        )


@stage(13, "scoring")
def score(o: Options, n: Names, recipe: Recipe) -> Iterator[Task | str]:
    for name in n.tests:
        data, out = n.formatted(name), n.decoded(name)
        words = command("score", "--ref", f"{data}/text", "--hyp", f"{out}/text")
        words += ["--utt2spk", f"{data}/utt2spk", "--token_type", o.token_type]
        words += ["--output_dir", f"{out}/score", *_nlsyms(o)]
        words += ["--bpe_model", n.bpemodel] if o.token_type == "bpe" else []
        # Unless asked for nothing is given, and what was scored before stays right.
        words += ["--normalizer", o.score_normalizer] if o.score_normalizer != "none" else []
        for option, path in (("--utt2lang", f"{data}/utt2lang"), ("--hyp_lang", f"{out}/lang")):
            words += [option, path] if os.path.isfile(path) else []
        scores = in_folder(f"{out}/score", "score.json", "score.txt")
        needs = made_by(3, f"{data}/text") | made_by(12, f"{out}/text")
        yield Task(f"scoring of {name}", words, out, outputs=scores, needs=needs)
    page = f"{n.asr_exp}/RESULTS.md"
    yield Task("results", command("show_results", n.asr_exp, "--output", page))


def launcher(o: Options) -> list[str]:
    """Return how a training begins: in one process, or in one a GPU."""
    if int(o.ngpu) > 1:
        torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", o.ngpu]
        return ["python", "-m", *torchrun, "-m"]
    return ["python", "-m"]


def no_model(path: str, number: int) -> str:
    """Say of a model that is not there which stage makes it, and which others there are."""
    there = " ".join(sorted(map(str, Path(path).parent.glob("*.pth"))))
    return f"no such model (stage {number} makes them); there are: {there or 'none'}"


def _training(name: str, words: list[str], folder: str, config: TrainingConfig) -> Task:
    return Task(
        name,
        words,
        folder,
        ignore=[*DEVICES, "config", "num_workers", "log_interval", "log_level"],
        resumes=in_folder(folder, "checkpoint.pth", "checkpoint.prev.pth"),
        # A finished training that lacks the average of its best epochs makes it again.
        outputs=in_folder(folder, "config.yaml", config.model_file),
    )


def _for_training(n: Names) -> dict[str, str]:
    sets = (f"{n.filtered(name)}/{n.scp}" for _, name in _sets(n))
    return made_by(4, *sets) | made_by(5, n.token_list)


def _sets(n: Names) -> tuple[tuple[str, str], ...]:
    return ("train", n.train), ("valid", n.valid)


def _data(kind: str, text: str) -> list[str]:
    return [f"--{kind}_data_path_and_name_and_type", text]


def _shapes(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{kind}/{name}" for kind in ("train", "valid") for name in names]


def _devices(o: Options) -> list[str]:
    # Under torchrun each process owns one GPU, and ESPnet must not start processes of its own.
    return ["--ngpu", str(min(int(o.ngpu), 1)), "--multiprocessing_distributed", "false"]


def _channel(o: Options) -> list[str]:
    return ["--channel", o.channel] if int(o.channel) else []


def _nlsyms(o: Options) -> list[str]:
    return [] if o.nlsyms_txt == "none" else ["--nlsyms_txt", o.nlsyms_txt]


def _tokens(o: Options, n: Names) -> list[str]:
    return [
        *("--use_preprocessor", "true", "--bpemodel", n.bpemodel, "--token_type", o.token_type),
        *("--token_list", n.token_list, "--non_linguistic_symbols", o.nlsyms_txt),
        *("--cleaner", "none", "--g2p", "none"),
    ]


def _asr_training(o: Options, n: Names) -> list[str]:
    """What statistics and training have in common."""
    words = ["mambaasr.bin.asr_train", *_tokens(o, n), "--frontend_conf", f"fs={o.fs}"]
    for kind, name in _sets(n):
        words += _data(kind, n.speech(n.filtered(name)))
        words += _data(kind, f"{n.filtered(name)}/text,text,text")
    return words


def _lm_training(o: Options, n: Names) -> list[str]:
    """What statistics and training of the language model have in common."""
    words = ["mambaasr.bin.lm_train", *_tokens(o, n)]
    for kind in ("train", "valid"):
        words += _data(kind, f"{_lm_text(n, kind)},text,text")
    return words


def _lm_text(n: Names, kind: str) -> str:
    return f"{n.raw}/lm_{'train' if kind == 'train' else 'dev'}{n.lm_id}.txt"


def _joined_text(n: Names, kind: str) -> Task:
    """What makes a text of the language model: a task of stage 6, whichever stage asks for it."""
    out, name = _lm_text(n, kind), "training" if kind == "train" else "validation"
    words = command("join_texts", "--out", out, "--text", *shlex.split(n.lm_text[kind]))
    words += ["--leave_out", *n.other_speeds] if kind == "train" and n.other_speeds else []
    title = f"text for {name} {n.lm_id.strip('_')}".strip()
    return Task(title, words, n.dumpdir, outputs=[out], stage=6)


def _lm_as_it_is(n: Names) -> str:
    return f"no --lm_config: {n.lm_exp} is taken as it is"
