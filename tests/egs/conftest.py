"""A recipe for the staged driver."""

import pytest
from recipes import DATA_SH


@pytest.fixture
def recipe(tmp_path):
    """A recipe folder under a name that would hurt a careless shell; its corpus is empty."""
    folder = tmp_path / "a b,'c' \"d\" $(touch pwned) #e" / "asr1"
    (folder / "conf").mkdir(parents=True)
    (folder / "local").mkdir()
    (folder / "conf/train_asr.yaml").write_text("encoder: conmamba\nmax_epoch: 1\n")
    (folder / "conf/train_lm.yaml").write_text("lm: mamba\nmax_epoch: 1\n")
    script = folder / "local/data.sh"
    script.write_text(DATA_SH)
    script.chmod(0o755)
    for name in ("train", "dev", "test"):
        (folder / "prepared" / name).mkdir(parents=True)
        for file in ("wav.scp", "text", "utt2spk"):
            (folder / "prepared" / name / file).touch()
    yield folder
    assert not list(tmp_path.rglob("pwned")), "a name was executed"
