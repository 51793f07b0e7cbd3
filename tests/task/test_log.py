"""What the user reads when a training stops at an audio file."""

import shutil

import pytest
import torch
from soundfile import LibsndfileError

from mambaasr.task.log import _message, _short


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise LibsndfileError(2, "Error opening 'a.flac': ")


def test_an_error_from_a_worker_can_be_printed():
    with pytest.raises(LibsndfileError) as caught:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    with pytest.raises(TypeError):
        str(caught.value)
    assert "Error opening 'a.flac': " in _message(caught.value)
    assert _message(ValueError("as it is")) == "as it is"


def test_an_epochs_line_shows_what_the_model_reports():
    said = "3epoch results: [train] loss=nan, acc=nan, time=5 seconds, [valid] cer_ctc=0.5, cer=nan"
    assert _short(said) == "epoch 3  train: loss nan, time 5 seconds; valid: cer_ctc 0.5"


@pytest.mark.parametrize("damage, workers", [("missing", 1), ("truncated", 0)])
def test_a_bad_file_is_one_line(workspace, tmp_path, damage, workers):
    content = (workspace.folder / "train/wav.scp").read_text()
    utt, path = content.splitlines()[0].split(maxsplit=1)
    bad = tmp_path / "bad.wav"
    shutil.copy(path, bad)
    if damage == "missing":
        bad.unlink()
    else:
        bad.write_bytes(bad.read_bytes()[:30])
    (tmp_path / "wav.scp").write_text(content.replace(f"{utt} {path}", f"{utt} {bad}"))
    output = tmp_path / "exp"
    arguments = [
        f"{tmp_path}/wav.scp,speech,sound" if each == "train/wav.scp,speech,sound" else each
        for each in workspace.arguments(output, "--num_workers", str(workers))
    ]
    code, said = workspace.run(arguments)
    assert code == 2 and "Traceback" not in said, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("error: an audio file is missing or damaged: ") and str(bad) in last
    assert "run stage 3" in last
    assert f"id={utt}" in said
    assert "stopped by UserError" in (output / "train.log").read_text()
