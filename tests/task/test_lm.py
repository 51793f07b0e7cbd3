"""The LM task trains, resumes after a kill, and says in one line what is wrong."""

import signal
import time

import pytest
import torch
import yaml

from mambaasr.errors import UserError
from mambaasr.task.lm import LMTask

CONFIG = """\
lm: mamba
lm_conf:
  unit: 16
  num_blocks: 1
optim: adam
optim_conf:
  lr: 0.01
batch_type: unsorted
batch_size: 4
num_att_plot: 0
use_matplotlib: false
use_tensorboard: false
num_workers: 0
best_model_criterion:
- [valid, loss, min]
seed: 1
"""


@pytest.fixture(scope="module")
def space(workspace):
    """The ASR task's workspace, with a config and statistics of a language model."""
    (workspace.folder / "lm.yaml").write_text(CONFIG)
    arguments = lm_arguments("lm_stats", "--collect_stats", "true")
    arguments = [word.replace("lm_stats/", "") for word in arguments]
    code, printed = workspace.run(
        [*arguments, "--train_shape_file", "train/text", "--valid_shape_file", "valid/text"],
        command="lm_train",
    )
    assert code == 0, printed
    return workspace


def lm_arguments(output, *more):
    """Return the arguments of a training, or with ``--collect_stats`` of statistics."""
    found = ["--config", "lm.yaml", "--output_dir", output, "--token_type", "char"]
    found += ["--token_list", "tokens.txt"]
    for name in ("train", "valid"):
        found += [f"--{name}_data_path_and_name_and_type", f"{name}/text,text,text"]
        if "--collect_stats" not in more:
            found += [f"--{name}_shape_file", f"lm_stats/{name}/text_shape.char"]
    return [*found, *more]


@pytest.fixture
def train(space, monkeypatch):
    """Run the task in this process, inside the workspace."""
    monkeypatch.chdir(space.folder)

    def run(output, *more):
        LMTask.main(cmd=lm_arguments(output, *more))
        return space.folder / output

    return run


def test_statistics_name_every_text(space):
    for name, count in (("train", 20), ("valid", 5)):
        folder = space.folder / "lm_stats" / name
        lines = (folder / "text_shape.char").read_text().splitlines()
        assert len(lines) == count
        assert all(line.endswith(f",{space.vocabulary}") for line in lines)
        assert (folder / "report.tsv").read_text().count("\n") == 1


def test_it_learns_and_opens_in_espnet(train, space, tmp_path, monkeypatch):
    folder = train("lm_trained", "--max_epoch", "3", "--keep_nbest_models", "2")
    log = (folder / "train.log").read_text()
    assert "command: " in log and "3epoch results" in log
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["train_data_path_and_name_and_type"][0][0] == f"{space.folder}/train/text"
    stats = torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["stats"]
    losses = [stats[epoch]["valid"]["loss"] for epoch in (1, 3)]
    assert losses[1] < losses[0] - 0.1
    monkeypatch.chdir(tmp_path)
    from espnet2.tasks.lm import LMTask as Theirs

    model, _ = Theirs.build_model_from_file(
        folder / "config.yaml", folder / "valid.loss.ave.pth", "cpu"
    )
    own = torch.load(folder / "valid.loss.ave.pth", weights_only=True)
    assert all(torch.equal(value, own[key]) for key, value in model.state_dict().items())


def test_espnets_transformer_trains_too(train):
    conf = [
        "--lm",
        "transformer",
        "--lm_conf",
        "{att_unit: 16, embed_unit: 16, unit: 16, layer: 1}",
    ]
    # Options of the config's class would not fit this one.
    path = "lm_transformer.yaml"
    with open("lm.yaml") as lines, open(path, "w") as stream:
        stream.writelines(
            line for line in lines if not line.startswith(("lm", "  unit", "  num_b"))
        )
    folder = train("lm_theirs", "--config", path, *conf, "--max_epoch", "1")
    assert (folder / "valid.loss.ave.pth").exists()


def test_a_kill_and_a_resume(space):
    """Killed between two epochs or inside one, it resumes after the last whole one."""
    process = space.start(lm_arguments("lm_killed", "--max_epoch", "100000"), command="lm_train")
    folder = space.folder / "lm_killed"
    deadline = time.monotonic() + 120
    while not (folder / "3epoch.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    epoch = torch.load(folder / "checkpoint.pth", weights_only=True)["reporter"]["epoch"]
    more = ["--resume", "true", "--max_epoch", str(epoch + 1)]
    code, printed = space.run(lm_arguments("lm_killed", *more), command="lm_train")
    assert code == 0, printed
    assert f"resuming after epoch {epoch} of {epoch + 1}" in printed
    assert (folder / f"{epoch + 1}epoch.pth").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--lm_conf", "unit=-1"], "lm.yaml: the model cannot be built: MambaLM: unit is -1"),
        (["--lm_conf", "mixer=mamba3"], "mixer is 'mamba3'; choose one of mamba1, mamba2"),
        (
            ["--rir_scp", "x"],
            "unrecognized arguments: --rir_scp x; see mambaasr lm_train --help_all",
        ),
    ],
)
def test_wrong_options(train, more, message):
    with pytest.raises(UserError, match=message):
        train("nothing", *more)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--lm", "mambo"], "--lm: lm `mambo` is unknown; did you mean `mamba`?"),
        (["--encoder", "mamba"], "there is no option --encoder"),
        (["--lm", "mamba", "--lm_conf", "units=2"], "lm_conf has no option `units`; did you mean"),
        (["--lm", "mamba", "--lm_conf", "vocab_size=2"], "lm_conf has no option `vocab_size`"),
    ],
)
def test_commands_are_checked_first(arguments, message):
    from mambaasr.bin import lm_train

    with pytest.raises(UserError) as caught:
        lm_train.main(arguments)
    assert message in str(caught.value)
