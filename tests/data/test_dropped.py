import pytest

from mambaasr.data.dropped import Dropped, carry_rows, read_report, write_report
from mambaasr.errors import UserError


def test_rows_come_back(tmp_path):
    rows = [Dropped("a", "wav.scp:1", "too short"), Dropped(None, "text:2", "the id is not UTF-8")]
    assert read_report(tmp_path) == []
    write_report(tmp_path, [*rows, Dropped("b", "x", "one\ttwo\nthree")])
    assert read_report(tmp_path) == [*rows, Dropped("b", "x", "one two three")]
    assert (tmp_path / "report.tsv").read_text().startswith("utt\twhere\treason\na\twav.scp:1\t")


def test_rows_are_carried_over(tmp_path):
    old = [
        Dropped("a", "text:1", "old"),
        Dropped(None, "text:2", "no id"),
        Dropped("b", "x:1", "?"),
    ]
    write_report(tmp_path, old)
    new = [Dropped("a", "wav.scp:1", "new"), Dropped("c", "wav.scp:3", "too short")]
    assert carry_rows(tmp_path, new, kept=["b"]) == [old[1], *new]
    assert carry_rows(tmp_path, []) == old
    assert carry_rows(tmp_path / "nowhere", new) == new


def test_some_other_file(tmp_path):
    (tmp_path / "report.tsv").write_text("hello\n")
    with pytest.raises(UserError, match="report.tsv: not a report"):
        read_report(tmp_path)
