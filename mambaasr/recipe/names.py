"""Where a recipe's files lie, and how its experiments are called: ESPnet2's names."""

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from mambaasr.errors import UserError
from mambaasr.recipe.options import BLOCKS, Options, check_name
from mambaasr.recipe.task import Task, load

# Blocks of one name in different slots are different models.
SHORT = {"encoder": "enc", "decoder": "dec", "model": "model", "optim": "opt"}
# What a data folder has beside wav.scp or feats.scp.
TEXT_FILES = ("text", "utt2spk")


def plain(text: str) -> str:
    """Return options as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_.+-]", "", text.replace("--", "_"))


def stem(path: str) -> str:
    """Return a path's file name without its suffix, as part of a file name."""
    return plain(Path(path).stem)


@dataclass(frozen=True, slots=True)
class Names:
    """Folders and files of a recipe, relative to its own folder.

    Attributes:
        train: the training set, at all its speeds.
        valid: the validation set.
        tests: the test sets.
        datadir, raw: data folders as the corpus gives them, and formatted.
        data_scp, scp: the file that lists the audio, or features, in each.
        kind: ESPnet's type of what the formatted one lists.
        token_dir, token_list, bpemodel: the tokens; bpemodel is "none" for other token types.
        tokens: the token type, with what tells BPE models apart.
        asr_stats_dir, asr_exp: statistics and experiment.
        asr_model: the file to decode with.
        decode_dir: what is decoded, a folder a test set.
        lm_stats_dir, lm_exp, lm_model: the language model's.
        ngram_exp, ngram_model: folder of the n-gram models, and the file to decode with.
        lm_text: for each of "train", "valid" and "test" the text files, quoted as in a shell.
        lm_id: tells these texts from others that another run of this recipe has joined.
        other_speeds: prefixes of utterances that repeat a transcript at another speed.
    """

    train: str
    valid: str
    tests: tuple[str, ...]
    datadir: str
    dumpdir: str
    raw: str
    data_scp: str
    scp: str
    kind: str
    tokens: str
    token_dir: str
    sets_report: str
    asr_stats_dir: str
    asr_exp: str
    asr_model: str
    decode_dir: str
    lm_stats_dir: str
    lm_exp: str
    lm_model: str
    ngram_exp: str
    ngram_model: str
    lm_text: dict[str, str]
    lm_id: str
    other_speeds: tuple[str, ...]

    @property
    def token_list(self) -> str:
        return f"{self.token_dir}/tokens.txt"

    @property
    def bpemodel(self) -> str:
        return f"{self.token_dir}/bpe.model" if self.tokens.startswith("bpe") else "none"

    def data(self, name: str) -> str:
        """A set as the corpus gives it."""
        return f"{self.datadir}/{name}"

    def formatted(self, name: str) -> str:
        """A set with its audio formatted, before any filter.

        Training and validation sets are filtered into another folder; where they are tested
        too, this one counts: no test loses utterances.
        """
        filtered = name in (self.train, self.valid)
        return f"{self.raw}/org/{name}" if filtered else f"{self.raw}/{name}"

    def filtered(self, name: str) -> str:
        """A training or validation set after the filter."""
        return f"{self.raw}/{name}"

    def data_files(self, formatted: bool = True) -> tuple[str, ...]:
        """Names of the files that every data folder has, formatted or as the corpus gives it."""
        return (self.scp if formatted else self.data_scp, *TEXT_FILES)

    def speech(self, folder: str) -> str:
        """What ESPnet is to read of a formatted folder: PATH,name,type."""
        return f"{folder}/{self.scp},speech,{self.kind}"

    def decoded(self, name: str) -> str:
        """What was decoded of a test set."""
        return f"{self.decode_dir}/{name}"


def make_names(o: Options, model_file: str) -> Names:
    """Derive all names from checked options.

    Args:
        o: of :func:`mambaasr.recipe.options.check`.
        model_file: what the training averages its best epochs into, such as
            ``valid.acc.ave.pth``.

    Raises:
        UserError: a name that results cannot be one of a file.
    """
    bpe = o.token_type == "bpe"
    speeds = "_sp" if o.speed_perturb_factors.split() else ""
    language = "" if o.lang == "noinfo" else o.lang
    raw = f"{o.dumpdir}/{o.feats_type}"
    scp = "wav.scp" if o.feats_type == "raw" else "feats.scp"
    in_archives = o.feats_type != "raw" or o.audio_format.endswith(".ark")
    tokens = f"bpe_{o.bpemode}{o.nbpe}" if bpe else o.token_type
    own_tokens = f"{o.datadir}/{language}{'_' if language else ''}token_list/{tokens}"
    suffix = "_".join(filter(None, (language, o.token_type + (o.nbpe if bpe else ""))))
    encoder = f"_enc_{stem(o.encoder)}" if o.encoder else ""
    blocks = "".join(f"_{SHORT[name]}_{stem(o[name])}" for name in BLOCKS if o[name])
    drawn = f"_lang{plain(o.language_upsampling)}" if float(o.language_upsampling) != 1 else ""
    drawn += f"_join{plain(o.join_utterances)}" if float(o.join_utterances) else ""
    asr_tag = o.asr_tag or (
        f"{stem(o.asr_config)}{blocks}_{o.feats_type}_{suffix}"
        f"{plain(o.asr_args.replace(' ', ''))}{speeds}{drawn}"
    )
    asr_exp = o.asr_exp or f"{o.expdir}/asr_{asr_tag}"
    lm_tag = o.lm_tag or (
        f"{stem(o.lm_config or 'lm')}_{suffix}{plain(o.lm_args.replace(' ', ''))}"
    )
    lm_exp = o.lm_exp or f"{o.expdir}/lm_{lm_tag}"
    asr_model = o.inference_asr_model or model_file
    train, tests = f"{o.train_set}{speeds}", tuple(o.test_sets.split())
    test = next((name for name in tests if name != o.valid_set), tests[-1])
    lm_text = {
        "train": o.lm_train_text or f"'{raw}/{train}/text'",
        "valid": o.lm_dev_text or f"'{raw}/{o.valid_set}/text'",
    }
    other_speeds = () if o.lm_train_text else _other_speeds(o.speed_perturb_factors.split())
    lm_id = _id_of_texts(o.dumpdir, lm_text, other_speeds, bool(o.lm_train_text or o.lm_dev_text))
    ngram_exp = o.ngram_exp or f"{o.expdir}/ngram_{suffix}{lm_id}"
    ngram = o.inference_ngram or f"{o.ngram_num}gram.arpa"
    inference_tag = o.inference_tag
    if not inference_tag:
        inference_tag = stem(o.inference_config or "inference")
        inference_tag += plain(o.inference_args.replace(" ", ""))
        if o.use_lm:
            inference_tag += f"_lm_{plain(Path(lm_exp).name)}_{stem(o.inference_lm)}"
        if o.use_ngram:
            inference_tag += f"_ngram_{plain(Path(ngram_exp).name)}_{stem(ngram)}"
        inference_tag += f"_asr_model_{stem(asr_model)}"
    made = {"asr_tag": asr_tag, "lm_tag": lm_tag, "inference_tag": inference_tag}
    for option, value in made.items():
        if len(value) >= 200:
            raise UserError(f"--{option} is too long for a file name: give a shorter one")
    # Another encoder may drop other utterances, so that two recipes at once must not share a
    # folder.
    asr_stats_dir = (
        o.asr_stats_dir or f"{o.expdir}/asr_stats_{o.feats_type}_{suffix}{speeds}{encoder}"
    )
    lm_stats_dir = o.lm_stats_dir or f"{o.expdir}/lm_stats_{suffix}{lm_id}"
    folders = {"asr_exp": asr_exp, "asr_stats_dir": asr_stats_dir, "lm_exp": lm_exp}
    folders["ngram_exp"] = ngram_exp
    for option, value in (made | folders | {"lm_stats_dir": lm_stats_dir}).items():
        check_name(option, value)
    names = Names(
        train=train,
        valid=o.valid_set,
        tests=tests,
        datadir=o.datadir,
        dumpdir=o.dumpdir,
        raw=raw,
        data_scp="feats.scp" if o.feats_type == "extracted" else "wav.scp",
        scp=scp,
        kind="kaldi_ark" if in_archives else "sound",
        tokens=tokens,
        token_dir=o.token_listdir or own_tokens,
        sets_report=f"{own_tokens}/sets.txt",
        asr_stats_dir=asr_stats_dir,
        asr_exp=asr_exp,
        asr_model=f"{asr_exp}/{asr_model}",
        decode_dir=f"{asr_exp}/{inference_tag}",
        lm_stats_dir=lm_stats_dir,
        lm_exp=lm_exp,
        lm_model=f"{lm_exp}/{o.inference_lm}",
        ngram_exp=ngram_exp,
        ngram_model=f"{ngram_exp}/{ngram}",
        lm_text=lm_text,
        lm_id=lm_id,
        other_speeds=other_speeds,
    )
    lm_text["test"] = o.lm_test_text or f"{names.formatted(test)}/text"
    return names


def _id_of_texts(
    dumpdir: str, texts: dict[str, str], leave_out: tuple[str, ...], named: bool
) -> str:
    """Return "" for the sets' own texts, or those that are joined already, else what names them.

    Two runs with other texts or sets must not write one file, from which one of them trains.

    Args:
        dumpdir: where they are joined.
        texts: the files of "train" and "valid".
        leave_out: prefixes of utterances.
        named: whether options name the files.
    """
    for kind, name in (("train", "training"), ("valid", "validation")):
        made = load(Task(f"text for {name}", [], dumpdir, stage=6).marker)
        if made is None and not named:
            continue
        words = [shlex.split(texts[kind])]
        left = [list(leave_out)] if leave_out and kind == "train" else None
        if made is None or (made["options"].get("--text"), made["options"].get("--leave_out")) != (
            words,
            left,
        ):
            said = json.dumps([texts, leave_out])
            return f"_{hashlib.sha256(said.encode()).hexdigest()[:8]}"
    return ""


def _other_speeds(factors: list[str]) -> tuple[str, ...]:
    """Every speed has the same words: the original's, or else the first one's, are enough."""
    kept = next(
        (factor for factor in reversed(factors) if float(factor) == 1), *factors[:1] or [""]
    )
    return tuple(f"sp{factor}-" for factor in factors if factor != kept)
