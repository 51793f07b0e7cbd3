"""Tests of python -m mambaasr.bin.show_results."""

import pytest

from mambaasr.bin import score
from mambaasr.bin.show_results import main
from mambaasr.errors import UserError


def test_screen_and_file_are_the_same(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("u a b\n")
    exp = tmp_path / "asr_x"
    place = exp / "decode" / "test" / "score"
    assert score.main(["--ref", str(text), "--hyp", str(text), "--output_dir", str(place)]) == 0
    capsys.readouterr()
    assert main([str(exp), "--output", str(exp / "RESULTS.md")]) == 0
    printed = capsys.readouterr().out
    assert printed == (exp / "RESULTS.md").read_text(encoding="utf-8")
    assert "| decode/test |   1 |   2 | 100.0 |" in printed
    with pytest.raises(UserError, match="no such experiment"):
        main([str(exp), str(tmp_path / "other")])
    (tmp_path / "asr_stats").mkdir()
    assert main([str(tmp_path / "asr_stats"), str(exp)]) == 0
    assert "asr_stats: nothing is scored in it" in capsys.readouterr().err
    with pytest.raises(UserError, match="asr_stats: nothing is scored"):
        main([str(tmp_path / "asr_stats")])
