"""Tests of python -m mambaasr.bin.show_results."""

import pytest

from mambaasr.bin import score
from mambaasr.bin.show_results import main
from mambaasr.errors import UserError


def test_the_origin_is_in_the_file_alone(tmp_path, capsys):
    text = tmp_path / "text"
    text.write_text("u a b\n")
    exp = tmp_path / "asr_x"
    place = exp / "decode" / "test" / "score"
    assert score.main(["--ref", str(text), "--hyp", str(text), "--output_dir", str(place)]) == 0
    capsys.readouterr()
    assert main([str(exp), "--output", str(exp / "RESULTS.md")]) == 0
    assert capsys.readouterr().out == f"written: {exp}/RESULTS.md\n"
    assert main([str(exp)]) == 0
    printed = capsys.readouterr().out
    tables, origin, _ = (exp / "RESULTS.md").read_text(encoding="utf-8").partition("\n## Origin")
    assert origin and printed == tables
    assert "| decode/test |   1 |   2 | 100.0 |" in printed
    with pytest.raises(UserError, match="no such experiment"):
        main([str(exp), str(tmp_path / "other")])
    (tmp_path / "asr_stats").mkdir()
    assert main([str(tmp_path / "asr_stats"), str(exp)]) == 0
    assert "asr_stats: nothing is scored in it" in capsys.readouterr().err
    with pytest.raises(UserError, match="asr_stats: nothing is scored"):
        main([str(tmp_path / "asr_stats")])
