"""What logs say of a training; markers are tested with the tables that ask for them."""

from mambaasr.recipe.experiment import cpu_seconds, epoch_seconds

EPOCHS = """2026 (trainer:394) INFO: 1epoch results: [train] loss=1.5, time=1 hour, 3 minutes and 1.5 seconds, total_count=9, [valid] loss=4.4, time=28.5 seconds, total_count=1
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=30 minutes, [valid] time=30 seconds
2026 (trainer:394) INFO: 2epoch results: [train] iter_time=0.5, time=29 minutes, [valid] time=1 minute and 0.0 seconds
"""  # noqa: E501


def test_times(tmp_path):
    (tmp_path / "train.log").write_text(EPOCHS)
    assert epoch_seconds(tmp_path / "train.log") == {1: 3810.0, 2: 1800.0}
    assert epoch_seconds(tmp_path / "none.log") == {}
    (tmp_path / "exp").mkdir()
    line = "stage 11: training\ta\tb\t9.0\t{}\t{}\tpython -m x --output_dir {} --y 'a b'\n"
    (tmp_path / "exp/timings.tsv").write_text(
        "step\tstart\tend\tseconds\tcpu_seconds\texit\tcommand\n"
        + line.format(60.0, 137, "exp/asr_x")
        + line.format(120.5, 0, "exp/asr_x")
        + line.format(7.0, 0, "exp/asr_xy")
    )
    assert cpu_seconds(tmp_path / "exp/asr_x") == 180.5
    assert cpu_seconds(tmp_path / "exp/asr_z") is None
