import pytest

from mambaasr.data.kaldi_file import (
    parse_count,
    parse_name,
    parse_path,
    parse_text,
    read_good_table,
    read_table,
    write_table,
)
from mambaasr.errors import UserError


def read(path, content, parse=parse_text):
    path.write_bytes(content)
    problems = []
    return read_table(path, parse, problems), [str(problem) for problem in problems], problems


def test_lines_line_ends_and_byte_order_mark(tmp_path):
    content = b"\xef\xbb\xbfb  TWO WORDS \r\n\na\tONE\nc\n" + "d gr\u00fc\u00df\n".encode()
    table, problems, _ = read(tmp_path / "text", content)
    assert table == {"b": "TWO WORDS", "a": "ONE", "c": "", "d": "gr\u00fc\u00df"}
    assert problems == []
    assert table.where("a") == f"{tmp_path}/text:3"
    assert table.select(["d", "x"]).where("d") == f"{tmp_path}/text:5"


def test_duplicate_that_differs_makes_the_id_unusable(tmp_path):
    table, said, problems = read(tmp_path / "text", b"a ONE\nb TWO\na THREE\na ONE\n")
    assert table == {"b": "TWO"}
    assert "text:3: duplicate id 'a', first in line 1" in said[0]
    assert "keep one of the lines" in said[0]
    assert {problem.key for problem in problems} == {"a"}


def test_duplicate_that_says_the_same_loses_nothing(tmp_path):
    table, said, problems = read(tmp_path / "text", b"a ONE\na ONE\n")
    assert table == {"a": "ONE"}
    assert "text:2: duplicate id 'a'" in said[0]
    assert problems[0].key is None


@pytest.mark.parametrize(
    "content, what",
    [
        (b"ok ONE\na \xff\xfe\n", "the line of 'a' is not UTF-8"),
        (b"ok ONE\n ONE\n", "the id is missing"),
        ("ok ONE\na\u00a0b ONE\n".encode(), "white space"),
        (b"ok ONE\na ONE\rTWO\n", "control character"),
    ],
)
def test_bad_lines_are_named_and_left_out(tmp_path, content, what):
    table, said, _ = read(tmp_path / "text", content)
    assert table == {"ok": "ONE"}
    assert len(said) == 1 and f"{tmp_path}/text:2:" in said[0] and what in said[0]


@pytest.mark.parametrize(
    "parse, value, what",
    [
        (parse_path, b"", "no audio file"),
        (parse_path, b"sox a.wav -t wav - |", "pipe"),
        (parse_name, b"spk extra", "more than two columns"),
        (parse_count, b"12.5", "not a whole number"),
    ],
)
def test_bad_values(tmp_path, parse, value, what):
    table, said, problems = read(tmp_path / "file", b"utt " + value + b"\n", parse)
    assert table == {} and what in said[0] and problems[0].key == "utt"


def test_paths_may_hold_nearly_everything(tmp_path):
    path = '/my data/it\'s "a",b/$(touch x).wav'
    table, problems, _ = read(tmp_path / "wav.scp", f"u {path}\n".encode(), parse_path)
    assert table == {"u": path} and problems == []
    write_table(tmp_path / "again", table)
    assert (tmp_path / "again").read_text() == f"u {path}\n"


def test_written_sorted_by_bytes(tmp_path):
    write_table(tmp_path / "text", {"b": 1, "\u00e9": 2, "B": 3, "\U0001f600": 4, "\uff21": 5})
    keys = [line.split()[0] for line in (tmp_path / "text").read_text("utf-8").splitlines()]
    assert keys == sorted(keys, key=str.encode) and keys[0] == "B"


@pytest.mark.parametrize(
    "entries", [{"a b": "x"}, {"": "x"}, {"a": "x\ny"}, {"a": " x"}, {"a": "\udcff"}]
)
def test_what_cannot_be_read_again_is_not_written(tmp_path, entries):
    with pytest.raises(UserError, match="cannot be written"):
        write_table(tmp_path / "text", entries)
    assert list(tmp_path.iterdir()) == []


def test_a_good_table_or_the_first_problem(tmp_path):
    (tmp_path / "text").write_text("a x\nb y\n")
    table = read_good_table(tmp_path / "text", parse_text)
    assert table == {"a": "x", "b": "y"} and table.where("b") == f"{tmp_path}/text:2"
    (tmp_path / "text").write_text("a x\na y\nb \x01\n")
    with pytest.raises(UserError, match="text:2: duplicate id 'a'"):
        read_good_table(tmp_path / "text", parse_text)
