import pytest

from mambaasr.data.dropped import read_report
from mambaasr.data.texts import join_texts
from mambaasr.errors import UserError


def test_texts_in_their_order_and_what_is_left_out(tmp_path):
    first, second, out = tmp_path / "first", tmp_path / "second", tmp_path / "new/all.txt"
    first.write_bytes(b"\xef\xbb\xbfb  ZWEI  W\xc3\x96RTER \r\n\na ONE\nempty\n")
    second.write_bytes(b"a AGAIN\nbad \xff\nc THREE\nd a\x07b")
    assert join_texts([first, second], out) == (3, 4)
    assert out.read_text() == "b ZWEI  WÖRTER\na ONE\nc THREE\n"
    rows = [(row.utt, row.where, row.reason) for row in read_report(f"{out}.report")]
    assert rows == [
        ("empty", f"{first}:4", "there is no text"),
        ("a", f"{second}:1", "the id occurred before"),
        (None, f"{second}:2", "the line is not UTF-8"),
        ("d", f"{second}:4", "the text holds a control character"),
    ]


def test_copies_at_another_speed_are_left_out(tmp_path):
    (tmp_path / "text").write_text("a ONE\nsp0.9-a ONE\nsp1.1-a ONE\nspeaker-b TWO\n")
    assert join_texts([tmp_path / "text"], tmp_path / "out", ["sp0.9-", "sp1.1-"]) == (2, 0)
    assert (tmp_path / "out").read_text() == "a ONE\nspeaker-b TWO\n"


def test_plain_text_has_no_ids(tmp_path):
    """Its first words would be ids, most lines repeat one, and would be lost."""
    lines = [f"{word} ran {count} miles" for count in range(20) for word in ("he", "she", "it")]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="57 of 60 lines begin with an id that occurred before"):
        join_texts([tmp_path / "text"], tmp_path / "out")
    # The same texts given twice are another matter.
    (tmp_path / "good").write_text("".join(f"{n} {line}\n" for n, line in enumerate(lines)))
    assert join_texts([tmp_path / "good"] * 2, tmp_path / "out") == (60, 60)


def test_nothing_to_train_on(tmp_path):
    (tmp_path / "text").write_text("a\nb\n")
    out = tmp_path / "out"
    with pytest.raises(
        UserError, match="no text to train on; the first reason: .*text:1: there is"
    ):
        join_texts([tmp_path / "text"], out)
    with pytest.raises(UserError, match="nowhere: cannot be read"):
        join_texts([tmp_path / "text", tmp_path / "nowhere"], out)
    assert not out.exists()
