"""The miniature of every recipe's corpus, and what makes a run of the recipe take seconds."""

import corpora
from recipes import TINY

from mambaasr.recipe.options import option_words

ALL = "train-clean-100 train-clean-360 train-other-500 dev-clean dev-other test-clean test-other"
SIX = "dutch french german italian polish spanish"
# Not all 102; with spaces and without.
FLEURS = "en_us tr_tr cmn_hans_cn"
VOXPOPULI = "cs de en es et fi fr hr hu it lt nl pl ro sk sl"
TWELVE = "cy de en es fr it nl pl pt ru tr zh-CN"
# recipe -> (variable, how the tree is made, sets and their utterances). Of several variables each
# names the folder of its own name in the tree.
CORPORA = {
    # It is not the corpus whose sums the recipe knows, hence --no-check in TOY.
    "an4": ("AN4", corpora.an4, dict(train_nodev=10, train_dev=1, test=2)),
    "librispeech": (
        "LIBRISPEECH",
        lambda root: corpora.librispeech(root, ALL.split()),
        dict(train_960=6, dev=4, dev_clean=2, dev_other=2, test_clean=2, test_other=2),
    ),
    "librispeech_100": (
        "LIBRISPEECH",
        lambda root: corpora.librispeech(root, ALL.split()),
        dict(train_clean_100=2, dev=4, dev_clean=2, dev_other=2, test_clean=2, test_other=2),
    ),
    "mini_librispeech": (
        "MINI_LIBRISPEECH",
        # 226 and 1737 are speakers of the development set.
        lambda root: corpora.librispeech(
            root, ["train-clean-5"] * 3 + ["test-clean"], numbers=[225, 226, 1737, 19]
        ),
        dict(train=2, dev=4, test_clean=2),
    ),
    "aishell": ("AISHELL", corpora.aishell, dict(train=2, dev=2, test=2)),
    "tedlium3": ("TEDLIUM3", corpora.tedlium, dict(train=2, dev=2, test=2)),
    "commonvoice_12": (
        "COMMONVOICE",
        lambda root: corpora.commonvoice(root, TWELVE.split()),
        dict(train=24, dev=24, test=24, train_cy=2, dev_cy=2),
    ),
    "commonvoice": (
        "COMMONVOICE",
        lambda root: corpora.commonvoice(root, ["es"]),
        dict(train=2, dev=2, test=2),
    ),
    "fleurs": (
        "FLEURS",
        lambda root: corpora.fleurs(root, FLEURS.split(), recordings=1),
        dict(train=3, dev=3, test=3),
    ),
    "voxpopuli": (
        "VOXPOPULI",
        lambda root: corpora.voxpopuli(root, VOXPOPULI.split(), segments=1),
        dict(train=16, dev=16, test=16),
    ),
    "spgispeech": (
        "SPGISPEECH",
        lambda root: corpora.spgispeech(root, 2, ("07a785", "0b52fe", "ff3e21")),
        dict(train=4, dev=2, val=6),
    ),
    "mlma": (
        "MLS COMMONVOICE VOXPOPULI",
        corpora.mlma,
        dict(train=30, dev=30, mls=6, commonvoice=12, voxpopuli=12),
    ),
    "covost2": (
        "COVOST2",
        lambda root: corpora.covost2(root, "fr_en"),
        dict(train=4, dev=2, test=2),
    ),
    "mls": ("MLS", lambda root: corpora.mls(root, SIX.split()), dict(train=6, dev=6, test=6)),
    "gigaspeech": ("GIGASPEECH", corpora.gigaspeech, dict(train_xl=2, dev=1, test=1)),
    "csj": ("CSJ", corpora.csj, dict(train=4, dev=4, eval1=20, eval2=20, eval3=20)),
    "ls_giga_spgi": (
        "LIBRISPEECH GIGASPEECH SPGISPEECH",
        corpora.ls_giga_spgi,
        dict(train=7, dev=4, test_clean=2, test_other=2, gigaspeech=1, spgispeech=1),
    ),
}


# What of run.sh's options is other for a toy: all recipes, then each. A recipe makes its own
# corpus where CORPORA has none.
TOY = {
    "asr_config": "toy",
    "encoder": "",
    "decoder": "",
    "optim": "",
    "speed_perturb_factors": "",
    "non_speech_ratio": "0",
    "inference_config": "toy_decode",
    "nj": "1",
    "inference_nj": "1",
}
TOYS = {
    "an4": {"local_data_opts": "--no-check"},
    "librispeech": {"nbpe": "14"},
    "librispeech_100": {"nbpe": "14"},
    "mini_librispeech": {"nbpe": "14", "speed_perturb_factors": "0.9 1.0"},
    "tedlium3": {"nbpe": "14"},
    "fleurs": {"local_data_opts": f"--languages {FLEURS}"},
    "spgispeech": {"nbpe": "14"},
    "covost2": {"nbpe": "17", "model": ""},
    "gigaspeech": {"nbpe": "28"},
    "ls_giga_spgi": {"nbpe": "300"},
    "spoken_numbers": {
        "local_data_opts": "--num_train 6 --num_dev 2 --num_test 2 --snrs clean",
        "non_speech_ratio": "0.1",
    },
}
# Where a recipe makes its corpus itself, its sets.
MADE = {"spoken_numbers": dict(train=6, dev=2, test_en=2)}
CONFIGS = {
    "toy": f"{TINY}use_matplotlib: false\nuse_tensorboard: false\n",
    "toy_decode": "beam_size: 2\nctc_weight: 0.5\nmaxlenratio: -10\n",
}


def options(recipe):
    """Return the words for a recipe's run.sh."""
    return option_words(TOY | TOYS.get(recipe, {}))


def make(recipe, root):
    """Write a recipe's miniature below ``root``; return the variables that name it."""
    variables, write, _ = CORPORA[recipe]
    tree = write(root)
    names = variables.split()
    return {name: str(tree / name if len(names) > 1 else tree) for name in names}
