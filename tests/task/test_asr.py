"""The ASR task trains, resumes, and says in one line what is wrong."""

import contextlib
import os
import shutil
import signal
import time

import pytest
import soundfile
import torch
import yaml

from mambaasr import provenance
from mambaasr.errors import UserError
from mambaasr.task import asr, common
from mambaasr.task.features import feature_statistics


@pytest.fixture
def train(workspace, monkeypatch):
    """Run the task in this process, inside the workspace."""
    monkeypatch.chdir(workspace.folder)

    def run(output, *more, **kwargs):
        asr.ASRTask.main(cmd=workspace.arguments(output, *more, **kwargs))
        return workspace.folder / output

    return run


CONMAMBA = """
encoder: conmamba
encoder_conf:
  output_size: 16
  num_blocks: 1
  linear_units: 16
  d_state: 4
decoder: mamba
decoder_conf:
  num_blocks: 1
frontend: fbank
frontend_conf: {}
"""


@pytest.fixture(scope="module")
def conmamba(workspace):
    """The workspace's config with our own classes."""
    config = yaml.safe_load(workspace.config.read_text())
    path = workspace.folder / "conmamba.yaml"
    path.write_text(yaml.safe_dump({**config, **yaml.safe_load(CONMAMBA)}))
    return str(path)


def test_our_classes_train(train, conmamba, workspace, capsys):
    stats = train("stats_ours", "--config", conmamba, collect=True)
    assert (stats / "train/text_shape.char").exists()
    assert workspace.long in (stats / "train/report.tsv").read_text()
    folder = train("ours", "--config", conmamba)
    state = torch.load(folder / "valid.acc.best.pth", weights_only=True)
    assert any(name.endswith("A_log") for name in state)
    log = (folder / "train.log").read_text()
    assert "command: " in log and "2epoch results" in log
    (start,) = provenance.starts(folder)
    assert (start["epoch"], start["seed"]) == (1, 1)
    assert start["device"] == provenance.cpu_model()
    assert provenance.commit_of(start) in capsys.readouterr().err
    (start,) = provenance.starts(stats)
    assert start["seed"] == 1 and "epoch" not in start


def test_statistics_leave_out_a_normalisation_by_statistics(train):
    stats = train("stats_mvn", "--normalize", "global_mvn", collect=True)
    assert yaml.safe_load((stats / "config.yaml").read_text())["normalize"] is None


def test_experiment_opens_wherever_it_is(train, workspace, tmp_path, monkeypatch):
    """ESPnet itself opens it after its recipe was renamed, and a copy of its folder alone."""
    recipe = tmp_path / "recipe"
    shutil.copytree(workspace.folder / "stats/train", recipe / "stats")
    train(
        str(recipe / "exp"), "--max_epoch", "1", "--normalize", "global_mvn",
        "--normalize_conf", f"stats_file={recipe}/stats/feats_stats.npz",
    )  # fmt: skip
    config = yaml.safe_load((recipe / "exp/config.yaml").read_text())
    assert config["normalize_conf"]["stats_file"] == "feats_stats.npz"
    for path, _, _ in config["train_data_path_and_name_and_type"]:
        assert os.path.isabs(path)
    renamed = recipe.rename(tmp_path / "renamed")
    shutil.rmtree(renamed / "stats")
    copied = shutil.copytree(renamed / "exp", tmp_path / "a/copy")
    monkeypatch.chdir(tmp_path)
    from espnet2.bin.asr_inference import Speech2Text

    for folder in (renamed / "exp", copied.relative_to(tmp_path)):
        recogniser = Speech2Text(
            folder / "config.yaml", folder / "valid.loss.best.pth", maxlenratio=0.1
        )
        assert recogniser(torch.zeros(16000).numpy())


def test_checkpoint_of_another_model(train):
    folder = train("other", "--max_epoch", "1")
    with pytest.raises(UserError, match="does not fit this config.*size mismatch"):
        train("other", "--resume", "true", "--encoder_conf", "output_size=32")
    assert torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["epoch"] == 1


def test_what_only_the_class_knows(train):
    with pytest.raises(UserError, match="train.yaml: the model cannot be built: .*unknown input"):
        train("never", "--encoder_conf", "input_layer=conv9d")


@pytest.mark.parametrize(
    "more, message",
    [
        (["--ngpu", "99"], "torch sees"),
        (["--token_list", "none.txt"], "--token_list none.txt: no such file"),
        (["--init_param", "none.pth:encoder"], "--init_param none.pth:encoder: no such file"),
        (["--train_data_path_and_name_and_type", "text"], "write path,name,type"),
        (["--seed", "many"], "--seed"),
    ],
)
def test_wrong_options(train, more, message):
    with pytest.raises(UserError, match=message):
        train("nothing", *more)
    assert not os.path.exists("nothing")


def test_fewer_utterances_than_devices(train, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(UserError, match="batch_size 8 is below the number of devices, 9"):
        train("never")
    with pytest.raises(UserError, match="valid/speech_shape: 5 utterances are fewer than the dev"):
        train("never", "--batch_size", "9")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):  # the first process has said it
        train("never")


def test_empty_text(train, workspace):
    (workspace.folder / "empty").write_text("")
    with pytest.raises(UserError, match="empty: the file is empty"):
        train("never", "--valid_data_path_and_name_and_type", "empty,text,text")


@pytest.mark.parametrize(
    "kind", ["sound", "multi_columns_sound", "variable_columns_sound", "kaldi_ark", "npy"]
)
@pytest.mark.parametrize(
    "command", ["touch harm |", "|touch harm", "touch harm |:12", "touch harm | [0:3]"]
)
def test_commands_in_wav_scp_are_not_run(train, workspace, kind, command):
    (workspace.folder / "pipe.scp").write_text(f"a a|b.wav\nb {command}\n")
    with pytest.raises(UserError, match="pipe.scp: line 2: commands"):
        train("never", "--train_data_path_and_name_and_type", f"pipe.scp,speech,{kind}")
    assert not (workspace.folder / "harm").exists()


def test_list_whose_name_is_a_command(train, workspace):
    (workspace.folder / "touch harm |").write_text("a a.ark:1\n")
    with pytest.raises(UserError, match="rename it"):
        train("never", "--train_data_path_and_name_and_type", "touch harm |,speech,kaldi_ark")
    assert not (workspace.folder / "harm").exists()


def test_texts_may_end_in_a_bar(train, workspace):
    lines = (workspace.folder / "train/text").read_text().splitlines()
    (workspace.folder / "bar").write_text("".join(f"{line} |\n" for line in lines))
    arguments = ["--train_data_path_and_name_and_type", "bar,note,text", "--dry_run", "true"]
    assert (train("bars", *arguments) / "config.yaml").exists()


def test_weights_to_start_from_must_fit(train, workspace):
    torch.save({"no.such.weight": torch.zeros(1)}, workspace.folder / "odd.pth")
    with pytest.raises(UserError, match="--init_param .*odd.pth.*no.such.weight"):
        train("never", "--init_param", "odd.pth")


def test_weights_that_are_left_are_named(train, workspace):
    folder = train("start", "--max_epoch", "1")
    weights = torch.load(folder / "1epoch.pth", weights_only=True)
    gone = {name for name in weights if name.startswith("ctc.")}
    assert gone
    part = {name: value for name, value in weights.items() if name not in gone}
    torch.save(part, workspace.folder / "part.pth")
    train("from_part", "--max_epoch", "1", "--init_param", "part.pth")
    log = (workspace.folder / "from_part/train.log").read_text()
    assert f"{len(gone)} of {len(weights)} weights are not in it" in log
    assert all(name in log for name in gone)
    train("from_encoder", "--max_epoch", "1", "--init_param", "part.pth:encoder:encoder")
    assert "weights are not in it" not in (workspace.folder / "from_encoder/train.log").read_text()
    with pytest.raises(UserError, match="part.pth:nothing: no weight of the model is in it"):
        train("never", "--init_param", "part.pth:nothing")


def test_data_paths_may_hold_commas():
    assert common.path_name_type("a,b/wav.scp, speech,sound") == ("a,b/wav.scp", "speech", "sound")


def test_sigterm_ends_cleanly_and_resumes(workspace):
    """The command ends by itself at SIGTERM, and the next one resumes after the last epoch."""
    arguments = workspace.arguments("stopped", "--max_epoch", "100000", "--keep_nbest_models", "1")
    process = workspace.start(arguments)
    folder = workspace.folder / "stopped"
    deadline = time.monotonic() + 120
    while not (folder / "3epoch.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    code, printed = process.wait(60)
    assert code == 128 + signal.SIGTERM, printed
    assert "stopped; with --resume true" in printed and "Traceback" not in printed
    assert "epoch 2  train: loss" in printed
    epoch = torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["epoch"]
    code, printed = workspace.run(
        workspace.arguments("stopped", "--resume", "true", "--max_epoch", str(epoch + 1))
    )
    assert code == 0, printed
    assert f"resuming after epoch {epoch} of {epoch + 1}" in printed
    assert (folder / f"{epoch + 1}epoch.pth").exists()
    assert [start["epoch"] for start in provenance.starts(folder)] == [1, epoch + 1]


def test_a_closed_terminal_stops_no_training(workspace):
    """As in ``mambaasr asr_train ... 2>&1 | head -1``."""
    reader, writer = os.pipe()
    process = workspace.start(workspace.arguments("alone"), output=writer)
    with os.fdopen(reader) as first:
        assert "commit" in first.readline()
    os.close(writer)
    assert process.wait()[0] == 0
    folder = workspace.folder / "alone"
    assert (folder / "2epoch.pth").exists()
    assert "2epoch results" in (folder / "train.log").read_text()


class _Model(torch.nn.Module):
    def __init__(self):
        from mambaasr.decoder.mamba import MambaDecoder
        from mambaasr.encoder.conmamba import ConMambaEncoder

        super().__init__()
        self.encoder = ConMambaEncoder(20, output_size=8, num_blocks=1, linear_units=8)
        self.decoder = MambaDecoder(5, 8, num_blocks=1)


def decays(*arguments):
    """Return parameter name -> weight decay of the optimizer that the options build."""
    args = asr.ASRTask.get_parser().parse_args(
        ["--optim", "adamw", "--optim_conf", "weight_decay=0.25", *arguments]
    )
    model = _Model()
    (optimizer,) = asr.ASRTask.build_optimizers(args, model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {
        names[id(parameter)]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert len(found) == len(names)
    return found


def test_what_takes_no_weight_decay():
    found = decays()
    for ending in ("A_log", ".D", "norm_mixer.weight", "after_norm.weight", ".bias"):
        values = {value for name, value in found.items() if name.endswith(ending)}
        assert values == {0.0}, ending
    for ending in ("in_proj.weight", "x_proj.weight", "dt_proj.weight"):
        values = {value for name, value in found.items() if name.endswith(ending)}
        assert values == {0.25}, ending


def test_weight_decay_of_all_when_asked_for(tmp_path):
    (tmp_path / "x.yaml").write_text("exclude_weight_decay: false\n")
    assert set(decays("--config", str(tmp_path / "x.yaml")).values()) == {0.25}
    assert set(decays("--exclude_weight_decay", "false").values()) == {0.25}


def test_optimizer_that_cannot_be_built():
    with pytest.raises(UserError, match="the optimizer cannot be built: .*learning rate"):
        decays("--optim_conf", "lr=-1.0")
    with pytest.raises(UserError, match="write 1.0e-3"):
        decays("--optim_conf", "lr=1e-3")


def conf(*values, default=None):
    arguments = [word for value in values for word in ("--encoder_conf", value)]
    parser = asr.ASRTask.get_parser()
    if default is not None:
        parser.set_defaults(encoder_conf=default)
    return parser.parse_args(arguments).encoder_conf


def test_forms_of_a_conf():
    assert conf() == {}
    assert conf("a=3", "c.d=4", "c.e=x") == {"a": 3, "c": {"d": 4, "e": "x"}}
    assert conf("c.d=4", "c=2") == {"c": 2}
    assert conf("c=2", "c.d=4") == {"c": {"d": 4}}
    assert conf("a=1", "{'b': true, \"c\": [2]}") == {"a": 1, "b": True, "c": [2]}
    default = {"a": {"b": 1}}
    assert conf("a.c=2", "{x: 1}", default=default) == {"a": {"b": 1, "c": 2}, "x": 1}
    assert default == {"a": {"b": 1}}


@pytest.mark.parametrize(
    "text",
    [
        "{'input_layer': __import__('os').system('touch harm')}",
        "{'input_layer': !!python/object/apply:os.system ['touch harm']}",
        "input_layer=!!python/object/apply:os.system ['touch harm']",
        'a.b=!!python/object/apply:os.system ["touch harm"]',
        "__import__('os').system('touch harm')",
    ],
)
def test_code_in_a_conf_is_not_run(train, workspace, text):
    with pytest.raises(UserError) as caught:
        train("never", "--encoder_conf", text)
    assert "\n" not in str(caught.value)
    assert not (workspace.folder / "harm").exists()


def test_killed_loader_is_named(workspace):
    """A process that loads data is killed, as the kernel does when memory runs out."""
    process = workspace.start(
        workspace.arguments("loader", "--max_epoch", "100000", "--num_workers", "1")
    )
    deadline = time.monotonic() + 240
    children = f"/proc/{process.pid}/task/{process.pid}/children"
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            for child in open(children).read().split():
                os.kill(int(child), signal.SIGKILL)
        time.sleep(0.05)
    code, printed = process.wait(60)
    assert code == 2, printed
    assert "Traceback" not in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert "memory" in line and "--num_workers (now 1)" in line and "--resume true" in line


@pytest.mark.parametrize(
    "variable, more",
    [
        ("WORLD_SIZE", ""),
        ("SLURM_NTASKS", "--dist_launcher slurm"),
        ("NONE", "--dist_world_size 2"),
    ],
)
def test_stochastic_depth_on_several_devices_wants_unused_parameters(monkeypatch, variable, more):
    monkeypatch.setenv(variable, "2")
    words = "--encoder conmamba --encoder_conf stochastic_depth_rate=0.1 --token_list x".split()
    words += more.split()
    args = asr.ASRTask.get_parser().parse_args(words)
    with pytest.raises(UserError, match="0.1 on 2 devices.*set unused_parameters: true"):
        asr.ASRTask.prepare(args)
    none = ["--encoder_conf", "stochastic_depth_rate=[0.0, 0.0]"]
    for fine in (["--unused_parameters", "true"], none):
        args = asr.ASRTask.get_parser().parse_args([*words, *fine])
        args.dry_run = True
        asr.ASRTask.prepare(args)


def test_espnets_lora_adapts_our_classes(train, conmamba, workspace):
    """Trained by ESPnet's options, from a model of before; the search opens what came out."""
    pytest.importorskip("loralib")
    from mambaasr.decode.load import load_speech2text

    train("stats_lora", "--config", conmamba, collect=True)
    before = train("lora_before", "--config", conmamba, "--max_epoch", "1")
    start = before / "valid.acc.best.pth"
    layers = ["in_proj", "dt_proj", "embed.out", "decoder.output_layer"]
    folder = train(
        "lora", "--config", conmamba, "--max_epoch", "1", "--init_param", str(start),
        "--use_adapter", "true", "--adapter", "lora",
        "--adapter_conf", "rank=2", "--adapter_conf", f"target_modules=[{','.join(layers)}]",
    )  # fmt: skip
    state = torch.load(folder / "valid.acc.best.pth", weights_only=True)
    changed = [name for name, value in state.items() if name.endswith("lora_B") and value.any()]
    assert len(changed) == len([name for name in state if name.endswith("lora_B")]) >= 6
    opened = load_speech2text(folder / "config.yaml", folder / "valid.acc.best.pth", beam_size=2)
    assert opened(torch.randn(16000).numpy())


def test_silence_with_empty_texts_trains(workspace, tmp_path, monkeypatch):
    """Batches of nothing else, and of both, through CTC and our decoder's loss."""
    sounds = {name: [] for name in ("train", "valid")}
    for name, lines in sounds.items():
        texts = dict(line.split(" ", 1) for line in open(workspace.folder / name / "text"))
        for line in open(workspace.folder / name / "wav.scp"):
            utt, path = line.split()
            if utt != workspace.long:
                lines.append((utt, path, texts[utt].strip()))
    for number in range(7):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, torch.randn(16000).numpy() * 0.01 * number, 16000)
        sounds["train"].append((f"zz{number}", path, ""))
    (tmp_path / "silent").mkdir()
    space = type(workspace)(tmp_path / "silent", sounds)
    config = yaml.safe_load(space.config.read_text()) | yaml.safe_load(CONMAMBA)
    space.config.write_text(yaml.safe_dump(config | dict(batch_size=4, max_epoch=1)))
    monkeypatch.chdir(space.folder)
    scps = {name: f"{name}/wav.scp" for name in sounds}
    feature_statistics({"frontend": "fbank"}, scps, "features")
    more = [f"--{name}_shape_file=features/{name}/speech_shape" for name in sounds]
    asr.ASRTask.main(cmd=space.arguments("stats", *more, collect=True))
    shapes = (space.folder / "stats/train/text_shape.char").read_text().splitlines()
    assert [line.split()[1].split(",")[0] for line in shapes if line.startswith("zz")] == ["0"] * 7
    asr.ASRTask.main(cmd=space.arguments("out"))
    state = torch.load(space.folder / "out/valid.acc.best.pth", weights_only=True)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
