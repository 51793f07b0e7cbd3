"""How long a training's utterances are."""

from mambaasr.data.lengths import quantiles, quantiles_of


def test_quantiles():
    found = quantiles(range(0, 1010, 10), rate=10)
    assert found == {"0": 0.0, "0.05": 5.0, "0.5": 50.0, "0.95": 95.0, "1": 100.0}


def test_of_lists_of_shapes(tmp_path):
    """In parts too; what holds frames of features says nothing of seconds."""
    (tmp_path / "one").write_text("a 16000\nb 32000\n")
    (tmp_path / "two").write_text("c 48000\n")
    files = [tmp_path / "one", tmp_path / "two"]
    assert quantiles_of(files, 16000)["0.5"] == 2.0
    (tmp_path / "two").write_text("c 300,80\n")
    assert quantiles_of(files, 16000) is None
    (tmp_path / "two").write_text("")
    assert quantiles_of(files[1:], 16000) is None
