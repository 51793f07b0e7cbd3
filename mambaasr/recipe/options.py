"""The options of ``run.sh``: one table for the parser, the checks, ``--help`` and the tables.

Values stay text, as given, but for switches (bool): a task compares the words of its command.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mambaasr.errors import UserError
from mambaasr.parallel import usable_cores
from mambaasr.recipe.advice import advise, near_words
from mambaasr.recipe.devices import count_gpus
from mambaasr.score.normalizers import NORMALIZERS, find_normalizer

# The recipes' shared files; a recipe may lie in another repository than the package.
TEMPLATE = Path("../../TEMPLATE/asr1")
LAST_STAGE = 13
BLOCKS = ("encoder", "decoder", "model", "optim")


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a recipe.

    Attributes:
        name: without dashes; on a command line ``-`` and ``_`` are the same.
        default: its value; a bool makes it a switch.
        help: one line.
        group: the heading under which ``--help`` lists it.
        kind: what its text must be, see :func:`check`.
        minimum: of a count.
        maximum: of a number, or None.
        choices: allowed texts.
        decides: what a change of it changes: "model", "decoding", what is run or where it lies
            ("run"), or nothing that a result shows ("none").
    """

    name: str
    default: str | bool
    help: str
    group: str
    kind: Literal["text", "switch", "count", "number", "stage", "words", "name", "yaml", "file"]
    minimum: int = 0
    maximum: int | None = None
    choices: tuple[str, ...] = ()
    decides: Literal["model", "decoding", "run", "none"] = "model"


class Options(dict[str, Any]):
    """The options' values by name, also as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def words(self, name: str) -> list[str]:
        """Return a text's words by the shell's quoting rules."""
        return shlex.split(self[name])


def _table() -> Iterator[Option]:
    group = ""

    def option(
        name: str, default: str | bool, help: str, kind: str = "text", **more: Any
    ) -> Option:
        kind = "switch" if isinstance(default, bool) else kind
        return Option(name, default, help, group, kind, **more)  # type: ignore[arg-type]

    def run(*arguments: Any, **more: Any) -> Option:
        return option(*arguments, decides="run", **more)

    def decoding(*arguments: Any, **more: Any) -> Option:
        return option(*arguments, decides="decoding", **more)

    # More jobs than cores only wait for each other; more than eight want a machine of some memory.
    jobs = str(min(usable_cores(), 8))
    one: dict[str, Any] = {"kind": "count", "minimum": 1}

    group = "What to run"
    yield run(
        "stage",
        "1",
        "first stage: 1 data, 2 speed perturbation, 3 format audio, 4 filter, 5 token list, "
        "6-8 language model, 9 n-gram model, 10 statistics, 11 training, 12 decoding, 13 scoring "
        "(14 pack and 15 upload are not built yet)",
        "stage",
    )
    yield run("stop_stage", str(LAST_STAGE), "last stage", "stage")
    yield run("skip_data_prep", False, "skip stages 1 to 5")
    yield run("skip_train", False, "skip stages 6 to 11")
    yield run("skip_eval", False, "skip stages 12 and 13")
    yield run("skip_stages", "", 'stages to skip, e.g. "2 13"')
    yield run(
        "force",
        False,
        "run the chosen stages although they are done and still right; a finished training only "
        "averages its models again",
    )
    yield run(
        "dry_run",
        False,
        "print the stages, their commands and why each would run; touch nothing, need no corpus",
    )
    yield run("print_options", False, "print every option with its value as JSON, and stop")
    yield option("ngpu", "0", "GPUs for the training; 0: CPU", "count", decides="none")
    yield option("nj", jobs, "parallel jobs for data and statistics", decides="none", **one)
    yield option(
        "inference_nj",
        jobs,
        "parallel jobs for decoding; default on the GPU: one each",
        decides="none",
        **one,
    )
    yield option("gpu_inference", False, "decode on the GPU", decides="none")
    yield run("datadir", "data", "data folders as the corpus gives them", "name")
    yield run("dumpdir", "dump", "formatted audio", "name")
    yield run("expdir", "exp", "statistics, models, results", "name")

    group = "Data"
    yield option("train_set", "", "training set (required)", "name")
    yield option("valid_set", "", "validation set (required)", "name")
    yield option("test_sets", "", 'test sets, e.g. "dev test" (required)', "name", decides="none")
    yield option("lang", "noinfo", "language, for names", "name")
    yield option("local_data_opts", "", "options for local/data.sh", "words", decides="none")
    yield option("speed_perturb_factors", "", 'e.g. "0.9 1.0 1.1"')
    yield option(
        "feats_type",
        "raw",
        "raw: train on audio; fbank: on features that stage 3 stores (frontend: fbank; no audio is "
        "read in training); extracted: on those of your own feats.scp",
        choices=("raw", "fbank", "extracted"),
    )
    yield option(
        "audio_format",
        "flac",
        "flac or wav; flac.ark or wav.ark: up to 1000 utterances in one file",
        choices=("flac", "wav", "flac.ark", "wav.ark"),
    )
    yield option("fs", "16k", "sampling rate", **one)
    yield option(
        "channel",
        "0",
        "of recordings with several the channel to take, from 1; 0: what reco2file_and_channel "
        "says, else their average",
        "count",
    )
    yield option("min_wav_duration", "0.1", "seconds; training and validation only", "number")
    yield option("max_wav_duration", "20", "seconds; training and validation only", "number")
    yield option(
        "non_speech_ratio",
        "0",
        "silence and noise with empty texts to train on, for each utterance with a text, e.g. 0.02",
        "number",
        maximum=1,
    )
    yield option(
        "bad_audio",
        "skip",
        "unreadable audio: skip (and report) or stop",
        choices=("skip", "stop"),
        decides="none",
    )

    group = "Tokens and language model"
    yield option(
        "token_listdir",
        "",
        "folder of tokens that are there already (tokens.txt, bpe.model), such as those of a model "
        "to start from; stage 5 makes none",
        "name",
    )
    yield option("token_type", "bpe", "char, bpe or word", choices=("char", "bpe", "word"))
    yield option("nbpe", "30", "number of BPE tokens", **one)
    yield option("bpemode", "unigram", "unigram or bpe", choices=("unigram", "bpe"))
    yield option(
        "bpe_char_cover",
        "1.0",
        "BPE: share of the characters that get a token",
        "number",
        maximum=1,
    )
    yield option(
        "bpe_byte_fallback",
        False,
        "BPE: spell other characters in bytes, so that nothing is unknown; takes 256 tokens",
    )
    yield option(
        "bpe_input_sentence_size",
        "100000000",
        "BPE: transcripts to learn from, at most",
        "count",
    )
    yield option(
        "bpe_nlsyms", "", "BPE: further symbols to keep in one piece: a file, or with commas"
    )
    yield option(
        "nlsyms_txt",
        "none",
        "file with a non-linguistic symbol a line, not scored; a name alone may lie in conf",
    )
    yield option(
        "text_prefix",
        "",
        "task tokens before the transcripts of training and validation, e.g. "
        '"<|{lang}|> <|transcribe|>"; list them in --nlsyms_txt',
    )
    yield decoding(
        "use_lm",
        False,
        "train a language model (stages 6 to 8) and decode with it, by the decoding's lm_weight",
    )
    yield decoding("lm_config", "", "yaml of its training, e.g. conf/train_lm.yaml", "yaml")
    yield decoding(
        "lm_args",
        "",
        'more options for its training, e.g. "--max_epoch 10"; they win over the yaml',
        "words",
    )
    yield decoding(
        "lm_tag",
        "",
        "name of its experiment; default: from its config, tokens and lm_args",
        "name",
    )
    yield decoding(
        "lm_exp",
        "",
        "folder of its experiment; default: <expdir>/lm_<lm_tag>; without lm_config: a trained one",
        "name",
    )
    yield decoding("lm_stats_dir", "", "folder of its statistics", "name")
    yield decoding(
        "lm_train_text",
        "",
        'texts to train it on, e.g. "data/train/text data/local/other_text/text"; default: the '
        "training set's, at one speed",
        "words",
    )
    yield decoding(
        "lm_dev_text", "", "texts to validate it on; default: the validation set's", "words"
    )
    yield decoding(
        "lm_test_text",
        "",
        "text to measure its perplexity on; default: that of the first test set that is not the "
        "validation set",
    )
    yield decoding("inference_lm", "valid.loss.ave.pth", "file in its folder to decode with")
    yield decoding(
        "use_ngram",
        False,
        "estimate an n-gram model of tokens on lm_train_text (stage 9) and decode with it, by the "
        "decoding's ngram_weight",
    )
    yield decoding("ngram_num", "3", "tokens of its longest n-grams", **one)
    yield decoding(
        "ngram_exp", "", "its folder; default: <expdir>/ngram_<tokens>, one for each text", "name"
    )
    yield decoding(
        "inference_ngram",
        "",
        "ARPA file in its folder to decode with, taken as it is; default: <ngram_num>gram.arpa of "
        "stage 9",
        "name",
    )

    group = "Training"
    yield option(
        "asr_config",
        "",
        "yaml of the training, e.g. conf/train_asr.yaml (required); of this and every other yaml "
        "the name alone will do: train_asr is conf/train_asr.yaml here or in TEMPLATE/asr1",
        "yaml",
    )
    yield option(
        "encoder",
        "",
        "yaml block laid over asr_config, e.g. conf/encoder/mamba.yaml, or mamba",
        "yaml",
    )
    yield option("decoder", "", "the same for the decoder", "yaml")
    yield option(
        "model", "", "the same for the model around them, e.g. conf/model/lid.yaml", "yaml"
    )
    yield option("optim", "", "the same for the optimiser", "yaml")
    yield option(
        "asr_args",
        "",
        'more options for the training, e.g. "--max_epoch 10"; they win over the yaml',
        "words",
    )
    yield run(
        "asr_tag", "", "name of the experiment; default: from configs, tokens and asr_args", "name"
    )
    yield run("asr_exp", "", "folder of the experiment; default: <expdir>/asr_<asr_tag>", "name")
    yield run("asr_stats_dir", "", "folder of the statistics", "name")
    yield option(
        "num_splits_asr",
        "1",
        "split the training set's lists in so many parts: a training holds one at a time",
        **one,
    )
    yield option(
        "language_upsampling",
        "1",
        "draw languages in training with probabilities proportional to (share of the audio) ** "
        "FACTOR, anew in each epoch: 1 as they come, 0 all alike; needs utt2lang",
        "number",
        maximum=1,
    )
    yield option(
        "join_utterances",
        "0",
        "join utterances of a speaker in training, anew in each epoch, to up to so many seconds; "
        "0: not",
        "number",
    )
    yield option(
        "feats_normalize",
        "global_mvn",
        "global_mvn, utterance_mvn or none",
        choices=("global_mvn", "utterance_mvn", "none"),
    )
    yield option("pretrained_model", "", "weights to start from: FILE[:FROM:TO[:EXCEPT]]", "file")
    yield option("ignore_init_mismatch", False, "leave out pretrained weights of another shape")
    yield run("resume_changed", False, "resume from a checkpoint that other data or options made")

    group = "Decoding"
    yield decoding(
        "inference_config", "", "yaml of the decoding, e.g. conf/decode_asr.yaml", "yaml"
    )
    yield decoding(
        "inference_args", "", 'more options for the decoding, e.g. "--beam_size 5"', "words"
    )
    yield run(
        "inference_tag",
        "",
        "name of the decoding; default: from its config, options and model",
        "name",
    )
    yield decoding(
        "inference_asr_model",
        "",
        "file in the experiment's folder; default: the average by best_model_criterion, e.g. "
        "valid.acc.ave.pth",
    )
    yield option(
        "score_normalizer",
        "none",
        f"a second WER, after what a leaderboard makes of the texts: {', '.join(NORMALIZERS)}; "
        "the whisper ones need the package whisper-normalizer",
        choices=NORMALIZERS,
        decides="none",
    )


OPTIONS: dict[str, Option] = {option.name: option for option in _table()}
REQUIRED = ("train_set", "valid_set", "test_sets", "asr_config")
# These go into yaml values and ESPnet's "PATH,name,type", where such characters would mean
# something. They are relative paths: the folders above the recipe may be called anything.
_UNFIT = re.compile(r"""[\[\],:;#"`$&*!|<>%{}'\\\x00-\x1f\x7f]""")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


def parse(words: Sequence[str]) -> tuple[Options, bool]:
    """Lay a command line over the defaults; decoding on GPUs has one job each by default.

    Returns:
        The options, and whether ``--help`` is asked for.

    Raises:
        UserError: see :func:`parse_given`.
    """
    given, help_wanted = parse_given(words)
    options = Options({name: option.default for name, option in OPTIONS.items()} | given)
    if options.gpu_inference and "inference_nj" not in given:
        options["inference_nj"] = str(max(1, count_gpus()))
    return options, help_wanted


def parse_given(words: Sequence[str]) -> tuple[dict[str, str | bool], bool]:
    """Return the options that a command line gives; of one that is given twice the last wins.

    Args:
        words: ``--name value`` and ``--name=value``.

    Returns:
        Option -> value, and whether ``--help`` is asked for.

    Raises:
        UserError: an option is unknown, lacks its value, or is a switch and neither true nor
            false.
    """
    given: dict[str, str | bool] = {}
    waiting, help_wanted = list(words), False
    while waiting:
        word = waiting.pop(0)
        if word in ("--help", "-h"):
            help_wanted = True
            continue
        if not word.startswith("--"):
            raise UserError(
                f"'{word}' is not an option: write --name value (a value of several words in "
                "quotes)"
            )
        name, equals, value = word[2:].partition("=")
        name = name.replace("-", "_")
        if name not in OPTIONS:
            value = value or next(filter(str.strip, waiting), "") or "VALUE"
            advice = advise(name, value, OPTIONS)
            raise UserError(f"unknown option --{name}{advice}; --help lists them all")
        if not equals:
            if not waiting:
                raise UserError(f"--{name} needs a value")
            value = waiting.pop(0)
        given[name] = value
        if OPTIONS[name].kind == "switch":
            if value not in ("true", "false"):
                raise UserError(f"--{name} takes true or false, not '{value}'")
            given[name] = value == "true"
    return given, help_wanted


def option_words(options: Mapping[str, str]) -> list[str]:
    """Return options as words of a command line."""
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def text_of(value: str | bool) -> str:
    """Return a value as a command line gives it."""
    return str(value).lower() if isinstance(value, bool) else value


def help_text(options: Options) -> str:
    """Return what ``--help`` prints: each option with its value as it stands."""
    lines = [
        "Usage: ./run.sh [--NAME VALUE | --NAME=VALUE] ...   (in brackets: the value as it stands)"
    ]
    group = None
    for name, option in OPTIONS.items():
        if option.group != group:
            group = option.group
            lines += ["", group]
        lines.append(f"  --{name:21} {option.help} [{text_of(options[name])}]")
    return "\n".join(lines) + "\n"


def check(options: Options, template: Path = TEMPLATE) -> Options:
    """Check all that can be known of options before anything runs.

    Args:
        options: of :func:`parse`.
        template: folder with the shared ``conf``.

    Returns:
        A copy in which yaml files are paths, ``fs`` is in Hz and ``stop_stage`` is not before
        ``stage`` where ``stage`` alone was given.

    Raises:
        UserError: an option's text is impossible, options do not fit each other, or a file or
            the normalizer's package is missing.
    """
    o = Options(options)
    for name in ("stage", "stop_stage"):
        _check_stage(name, o[name])
    for word in o.skip_stages.split():
        _check_stage("skip_stages", word)
    # --stage 14 alone asks for 14.
    if int(o.stage) > LAST_STAGE == int(o.stop_stage):
        o["stop_stage"] = o.stage
    first, last = int(o.stage), int(o.stop_stage)
    if first > last:
        raise UserError(f"--stage {first} comes after --stop_stage {last}")
    if last > LAST_STAGE:
        raise UserError("stages 14 and 15 (pack, upload) are not built yet: --stop_stage 13")
    if not o.use_lm and first > 5 and last < 9:
        raise UserError("stages 6 to 8 are the language model's: --use_lm true")
    if not o.use_ngram and first > 5 and last == 9 and (first == 9 or not o.use_lm):
        raise UserError("stage 9 is the n-gram model's: --use_ngram true")
    for kind, model in (("lm", "a language model"), ("ngram", "an n-gram model")):
        # One of the user's own may come with the arguments.
        weight = re.search(rf"--{kind}_weight[\s=]+([0-9.]*[1-9])", o.inference_args)
        if not o[f"use_{kind}"] and f"--{kind}_file" not in o.inference_args and weight:
            raise UserError(
                f"--{kind}_weight {weight[1]} has no effect without {model}: --use_{kind} true"
            )
    if o.use_lm and not o.lm_config and not o.lm_exp:
        raise UserError("--use_lm true needs --lm_config, or --lm_exp with a trained one")
    o["fs"] = re.sub("k$", "000", o.fs)
    for name, option in OPTIONS.items():
        check_text(option, o[name])
    if float(o.min_wav_duration) > float(o.max_wav_duration):
        raise UserError(
            f"--min_wav_duration {o.min_wav_duration} is above --max_wav_duration "
            f"{o.max_wav_duration}"
        )
    for word in o.speed_perturb_factors.split():
        if not _NUMBER.fullmatch(word) or float(word) == 0:
            raise UserError(f"--speed_perturb_factors '{word}' is not a number above 0")
    if o.feats_type != "raw":
        _check_without_audio(o)
    if int(o.num_splits_asr) > 1:
        for name in ("join_utterances", "language_upsampling"):
            if float(o[name]) != float(OPTIONS[name].default):
                raise UserError(f"--num_splits_asr: not with --{name}, which needs the whole lists")
    for name in REQUIRED:
        if not o[name].strip():
            raise UserError(f"--{name} is required")
    for name, option in OPTIONS.items():
        if option.kind == "yaml":
            o[name] = find_yaml(name, o[name], template)
    if o.nlsyms_txt != "none":
        o["nlsyms_txt"] = _find_symbols(o.nlsyms_txt, template)
    if o.text_prefix and o.nlsyms_txt == "none":
        raise UserError(
            f"--text_prefix '{o.text_prefix}': its words must be in a file --nlsyms_txt, or they "
            "would be scored"
        )
    if o.score_normalizer != "none":
        find_normalizer(o.score_normalizer)  # not found missing after the training
    return o


def _check_without_audio(o: Options) -> None:
    """Refuse what needs audio in training, or before stage 3 where only features are."""
    given = f"--feats_type {o.feats_type}"
    if o.feats_type == "extracted" and o.speed_perturb_factors.split():
        raise UserError(
            f'{given}: stage 2 perturbs audio: --speed_perturb_factors "", or extract features of '
            "perturbed audio"
        )
    for name in ("join_utterances", "non_speech_ratio"):
        if float(o[name]):
            raise UserError(f"--{name} {o[name]}: it needs audio in training: not with {given}")


def _find_symbols(value: str, template: Path) -> str:
    """Return the path of a list of symbols; a name alone may lie in ``conf`` or the template's."""
    for path in (value, f"conf/{value}", f"{template}/conf/{value}"):
        if Path(path).is_file():
            return path
    raise UserError(f"--nlsyms_txt {value}: no such file")


def _check_stage(name: str, text: str) -> None:
    if not re.fullmatch("[1-9]|1[0-5]", text):
        raise UserError(f"--{name} '{text}': stages are numbers from 1 to 15")


def check_text(option: Option, text: str | bool) -> None:
    """Check a value by the option's kind.

    Raises:
        UserError: it is impossible, or a file is missing.
    """
    if isinstance(text, bool):
        return
    given = f"--{option.name} '{text}'"
    if option.kind == "count":
        if not re.fullmatch("0|[1-9][0-9]{0,8}", text):
            raise UserError(f"{given} is not a whole number")
        if int(text) < option.minimum:
            raise UserError(f"--{option.name} {text}: must be at least {option.minimum}")
    elif option.kind == "number":
        if not _NUMBER.fullmatch(text):
            raise UserError(f"{given} is not a number")
        if option.maximum is not None and float(text) > option.maximum:
            raise UserError(f"--{option.name} {text}: give 0 to {option.maximum}")
    elif option.choices and text not in option.choices:
        raise UserError(f"{given}: choose one of: {' '.join(option.choices)}")
    elif option.kind == "words":
        try:
            shlex.split(text)
        except ValueError:
            raise UserError(f"{given}: a quotation mark is not closed") from None
    elif option.kind == "name":
        check_name(option.name, text)
    elif option.kind == "file" and text and not Path(text.partition(":")[0]).is_file():
        raise UserError(f"--{option.name} {text}: no such file: {text.partition(':')[0]}")


def check_name(option: str, text: str) -> None:
    """Check a text that becomes part of paths.

    Raises:
        UserError: a character would mean something where the path is written.
    """
    if _UNFIT.search(text):
        raise UserError(
            f"--{option} '{text}': use letters, digits, spaces and . _ + - = / in names"
        )


def find_yaml(option: str, value: str, template: Path = TEMPLATE, recipe: Path = Path(".")) -> str:
    """Return the path of a yaml: a name, or a path in ``conf``, may be the template's too.

    Args:
        option: such as "encoder", whose blocks lie in ``conf/encoder``.
        value: a path, or a name with or without ``.yaml``; empty for none.
        template: folder with the shared ``conf``, seen from the recipe.
        recipe: the recipe's folder, from which the path is seen.

    Raises:
        UserError: there is no such file, or it is no block of this option.
    """
    if not value:
        return value
    folder = Path("conf", option) if option in BLOCKS else Path("conf")
    places = [folder, template / folder]
    named = f"{value.removesuffix('.yaml')}.yaml"
    tried = [value, named]
    if "/" in value:
        places.append(Path(value).parent)
        if value.startswith("conf/"):
            tried += [f"{template}/{path}" for path in tried]
            places.append(template / places[-1])
    else:
        tried = [value, *(f"{place}/{named}" for place in places)]
    for path in tried:
        if not (recipe / path).is_file():
            continue
        text = (recipe / path).read_text(encoding="utf-8", errors="replace")
        # A block of another slot would leave this one as it is.
        if option in BLOCKS and not re.search(rf"^{option}(_conf)?:", text, re.MULTILINE):
            raise UserError(
                f"--{option} {value}: {path} has neither '{option}:' nor '{option}_conf:'"
            )
        return path
    stems = {path.stem for place in places for path in (recipe / place).glob("*.yaml")}
    wanted = {
        "asr_config": lambda stem: not stem.startswith(("decode", "train_lm")),
        "lm_config": lambda stem: stem.startswith("train_lm"),
        "inference_config": lambda stem: stem.startswith("decode"),
    }
    names = sorted(filter(wanted.get(option), stems))
    near = near_words(Path(named).stem, names)
    raise UserError(f"--{option} {value}: no such file{near}; there are: {' '.join(names)}")
