"""Every config of every recipe: checked, built, and one training step on the CPU.

Systems are what tables' rows name, and what is left of the files: each base and each block once.
Small recipes run as they are. Full-size systems are built on the meta device, where their
parameters are counted, and take their step with two narrow blocks.
"""

import copy
import functools
import json
from pathlib import Path

import pytest
import torch
import yaml

import mambaasr
from mambaasr import espnet_compat
from mambaasr.config import check_training, merge, read
from mambaasr.tables.read import read_table, run_options

EGS = Path(__file__).resolve().parents[2] / "egs"
TEMPLATE = EGS / "TEMPLATE/asr1/conf"
AN4 = EGS / "an4/asr1/conf"
SMALL = ("an4", "commonvoice_12", "mini_librispeech", "spoken_numbers")
TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<sos/eos>"]
BLOCKS = ("encoder", "decoder", "optim", "model")
SLOTS = ("asr_config", *BLOCKS)
LANGUAGES = ["de", "en", "es", "fr", "it"]

# Published millions of parameters: encoder, decoder, tokens -> (published, tolerance, why not 0).
# The tolerance is half of the published figure's last digit where nothing else is said.
# (encoder, decoder, tokens) -> millions that are published, that ours has, why they differ.
PUBLISHED = {
    ("speech_mamba", "speech_mamba", 5000): (67.6, 67.635, ""),
    ("conmamba_s", "transformer_4", 5000): (14.1, 14.076, ""),
    ("conmamba_s", "slytherin_s", 5000): (15.0, 14.571, "an independent reproduction has 14.6"),
    ("conmamba_l", "transformer_6h8", 5000): (115.2, 115.188, ""),
    ("conmamba_l", "slytherin_l", 5000): (122.9, 122.917, ""),
    ("conmamba_ctc", None, 31): (31.6, 31.556, ""),
    ("mlma_18", None, 31): (31.6, 31.556, ""),
    ("mlma_24", None, 31): (42.0, 42.008, ""),
    ("conformer_12", "transformer_6", 5000): (34.23, 34.230, ""),
    ("conextbimamba", "transformer_6", 5000): (41.59, 40.785, "see its block"),
    ("conformer_slytherin_s", "transformer_4", 5000): (13.3, 13.797, "ESPnet's class and stem"),
    ("conformer_slytherin_ctc", None, 31): (28.8, 30.448, "ESPnet's class and stem"),
    ("conformer_slytherin_l", "transformer_6h8", 5000): (109.1, 116.147, "ESPnet's class and stem"),
    ("e_branchformer_12", "transformer_6", 5000): (40.4, 38.472, "theirs reads discrete units"),
    ("e_branchformer_12", "mamba_6", 5000): (38.6, 39.520, "see the decoder's block"),
}
# MADEON counts blocks, norm, embedding and output of 10,000 tokens; ours besides has an input layer
# and one that makes a prefix of its frames.
MADEON = {
    "madeon": 38.5,
    "madeon_2": 37.9,
    "madeon_sp_serial": 38.5,
    "madeon_sp": 39.9,
    "madeon_2sp_serial": 37.9,
    "madeon_2sp": 38.0,
}


def all_yamls():
    """Return every config of a training: bases and blocks."""
    paths = [*EGS.glob("*/*/conf/train*.yaml"), *EGS.glob("*/*/conf/*/*.yaml")]
    return sorted(paths)


def is_lm(path):
    return "lm" in read(path)


def from_tables():
    """Yield (name, recipe, options) of every table's rows."""
    for path in sorted(EGS.glob("*/*/tables/*.yaml")):
        table = read_table(path)
        for row in table.rows:
            if row.runs:
                values = row.runs[0].values
                files = {name: Path(values[name]).absolute() for name in SLOTS if values[name]}
                yield f"{path.stem}-{row.key}", table.recipe.resolve(), files


def from_files():
    """Yield (name, recipe, options) that put every base and every block into some system."""
    defaults = {}
    for path in all_yamls():
        recipe = path.parents[1] if path.parent.name == "conf" else path.parents[2]
        conf = recipe / "conf"
        # The shared blocks are tried in a recipe that has none of its own.
        home = EGS / "librispeech_100/asr1" if recipe.parent.name == "TEMPLATE" else recipe
        options = dict(defaults.setdefault(home, run_options(home)))
        if is_lm(path):
            continue
        folder = path.parent.name.partition("_")[0]
        if path.parent == conf:
            folder = "asr_config"
        if folder == "model" and home != recipe:
            options |= {"asr_config": str(conf / "train_mlma.yaml"), "decoder": ""}
        if path.parent.name.endswith("_small"):  # small systems, those of AN4's tables
            home = AN4.parent
            options = {"asr_config": str(AN4 / "train_small.yaml")}
        if path.stem.endswith("_small") and home != recipe:
            options["asr_config"] = str(TEMPLATE.parent / "skeleton/conf/train_small.yaml")
        options[folder] = str(path)
        if folder == "asr_config" and read(path).get("decoder") == "none":
            options["decoder"] = ""
        if path == TEMPLATE / "decoder" / path.name and path.stem.startswith("madeon"):
            options["encoder"] = str(TEMPLATE / "encoder/madeon.yaml")
        if path == TEMPLATE / "encoder/mamba_uma.yaml":
            options |= {"asr_config": str(TEMPLATE / "train_uma.yaml"), "decoder": ""}
        yield f"{recipe.parent.name}-{path.parent.name}-{path.stem}", home, options


@functools.cache
def systems():
    """Return name -> (small?, paths of its parts, merged config), each once, and all paths."""
    found, seen, covered = {}, set(), set()
    for source in (from_tables(), from_files()):
        for name, recipe, options in source:
            paths = [options.get(slot) for slot in SLOTS]
            paths = [(recipe / path).resolve() for path in paths if path]
            config = merge(read(paths[0]), map(read, paths[1:]))
            content = json.dumps(config, sort_keys=True)
            new = source.__name__ == "from_tables" or not set(paths) <= covered
            if content not in seen and new:
                seen.add(content)
                small = recipe.parent.name in SMALL
                found[f"{recipe.parent.name}-{name}"] = (small, paths, config)
            covered |= set(paths)
    return found, covered


def named(small=None):
    return [name for name, system in systems()[0].items() if small in (None, system[0])]


@pytest.fixture(scope="module")
def task():
    mambaasr.register()
    return espnet_compat.import_quietly("mambaasr.task.asr").ASRTask


@pytest.fixture(scope="module")
def lm_task():
    mambaasr.register()
    return espnet_compat.import_quietly("mambaasr.task.lm").LMTask


@pytest.fixture(scope="module")
def classes():
    mambaasr.register()
    return {slot: espnet_compat.choices(slot) for slot in ("frontend", "encoder", "decoder")}


def parse(task, config, folder, tokens):
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(dict(config)), encoding="utf-8")
    args = task.get_parser().parse_args(["--config", str(path), "--output_dir", str(folder)])
    args.token_type, args.token_list, args.normalize = "char", tokens, "utterance_mvn"
    if vars(args).get("model") == "multilingual":
        args.model_conf = {"languages": LANGUAGES} | args.model_conf
    return args


def shrunk(config):
    """Return a config with two narrow blocks of everything; all that is no size stays."""
    small = copy.deepcopy(config)
    sizes = {"output_size": 32, "d_model": 32, "num_blocks": 2, "linear_units": 48}
    sizes |= {"cgmlp_linear_units": 48, "attention_heads": 4}
    sizes |= {"unit": 32, "att_unit": 32, "embed_unit": 32, "layer": 2, "head": 4}
    for slot in ("encoder_conf", "decoder_conf", "postencoder_conf", "lm_conf"):
        conf = small.get(slot, {})
        for key, size in sizes.items():
            if conf.get(key) is not None:
                conf[key] = min(size, conf[key])
    return small


def speech_batch(args):
    """Return a batch of noise and random tokens."""
    batch = {
        "speech": torch.randn(2, 20000) * 0.1,
        "speech_lengths": torch.tensor([20000, 13000]),
        "text": torch.randint(3, 20, (2, 5)),
        "text_lengths": torch.tensor([5, 3]),
    }
    if args.model == "multilingual":
        batch["lang"] = torch.tensor([[0], [1]])
    return batch


def take_one_step(task, args, batch):
    """Train on a batch once: the loss is finite and every parameter changes."""
    torch.manual_seed(0)
    model = task.build_model(args).train()
    optimizer = task.build_optimizers(args, model)[0]
    scheduler = espnet_compat.choices("scheduler")[args.scheduler](optimizer, **args.scheduler_conf)
    if hasattr(scheduler, "set_total_steps") and scheduler.total_steps is None:
        scheduler.set_total_steps(10 * scheduler.warmup_steps)
    for group in optimizer.param_groups:
        # The first rate of a long warm-up is too small to change a float32 of 1.
        group["lr"] = 1e-3
    loss, _, _ = model(**batch)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss.backward()
    optimizer.step()
    scheduler.step()
    assert loss.isfinite() and loss > 0
    for key, parameter in model.named_parameters():
        assert parameter.isfinite().all() and not torch.equal(parameter, before[key]), key


def test_every_file_is_in_some_system():
    lms = {path for path in all_yamls() if is_lm(path)}
    assert {path.resolve() for path in all_yamls()} - systems()[1] - lms == set()


@pytest.mark.parametrize("name", named())
def test_one_training_step(task, tmp_path, name):
    small, _, config = systems()[0][name]
    check_training(config)
    args = parse(task, config if small else shrunk(config), tmp_path, TOKENS)
    take_one_step(task, args, speech_batch(args))


@pytest.mark.parametrize("name", named(small=False))
def test_a_full_size_system_builds(task, tmp_path, name):
    args = parse(task, systems()[0][name][2], tmp_path, [str(i) for i in range(5000)])
    args.input_size = 80  # a front end computes its constants, which needs real memory
    with torch.device("meta"):
        model = task.build_model(args)
    assert millions(model) > 5


@pytest.mark.parametrize(
    "path", [path for path in all_yamls() if is_lm(path)], ids=lambda p: p.stem
)
def test_a_language_model_builds_and_takes_one_step(lm_task, tmp_path, path):
    config = dict(read(path))
    with torch.device("meta"):
        model = lm_task.build_model(parse(lm_task, config, tmp_path, TOKENS))
    assert millions(model) > 0.1
    text = {"text": torch.randint(3, 20, (2, 5)), "text_lengths": torch.tensor([5, 3])}
    take_one_step(lm_task, parse(lm_task, shrunk(config), tmp_path, TOKENS), text)


def millions(*modules):
    return sum(p.numel() for module in modules for p in module.parameters()) / 1e6


def on_meta(classes, encoder, decoder, vocabulary):
    """Return a full-size system's encoder, decoder (or None) and CTC layer, without memory."""
    conf = read(TEMPLATE / f"encoder/{encoder}.yaml")
    with torch.device("meta"):
        made = classes["encoder"][conf["encoder"]](input_size=80, **conf["encoder_conf"])
        width = made.output_size()
        parts = [made, None, torch.nn.Linear(width, vocabulary)]
        if decoder is not None:
            conf = read(TEMPLATE / f"decoder/{decoder}.yaml")
            cls = classes["decoder"][conf["decoder"]]
            parts[1] = cls(vocabulary, width, **conf["decoder_conf"])
    return parts


@pytest.mark.parametrize("system", PUBLISHED, ids=lambda system: f"{system[0]}-{system[1]}")
def test_parameters_are_the_published_ones_or_it_is_said_why_not(classes, system):
    published, ours, why = PUBLISHED[system]
    parts = [part for part in on_meta(classes, *system) if part is not None]
    assert millions(*parts) == pytest.approx(ours, abs=0.0005)
    assert why or ours == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("name", MADEON)
def test_parameters_of_madeon_are_the_published_ones(classes, name):
    decoder = on_meta(classes, "madeon", name, 10000)[1]
    assert millions(decoder) - millions(decoder.prefix) == pytest.approx(MADEON[name], abs=0.05)


def test_the_baseline_differs_by_its_two_blocks_alone_and_is_of_equal_size(classes):
    base = AN4 / "train_asr.yaml"
    blocks = [AN4 / "encoder/conformer.yaml", AN4 / "decoder/transformer.yaml"]
    ours, baseline = read(base), merge(read(base), map(read, blocks))
    differ = {key for key in ours | baseline if ours.get(key) != baseline.get(key)}
    assert differ == {"encoder", "encoder_conf", "decoder", "decoder_conf"}
    assert baseline["frontend"] == "fbank"
    sizes = []
    for config in (ours, baseline):
        encoder = classes["encoder"][config["encoder"]](80, **config["encoder_conf"])
        decoder = classes["decoder"][config["decoder"]](
            30, encoder.output_size(), **config["decoder_conf"]
        )
        sizes.append(millions(encoder, decoder))
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[1]


def test_the_blocks_of_the_default_say_what_the_base_says():
    base = read(AN4 / "train_asr.yaml")
    for block in ("encoder/conmamba.yaml", "decoder/mamba.yaml"):
        assert merge(base, [read(AN4 / block)]) == base


@pytest.mark.parametrize(
    "path",
    sorted(EGS.glob("*/*/conf/decode*.yaml")),
    ids=lambda path: f"{path.parents[2].name}-{path.stem}",
)
def test_decoding_options_are_known(path):
    from mambaasr.bin.asr_inference import get_parser

    known = {action.dest for action in get_parser()._actions}
    assert set(read(path)) <= known
