"""How often which language was taken for which."""

from mambaasr.score.languages import describe, identification, plot, table

TRUE = {"a": "de", "b": "de", "c": "nl", "d": "cy", "e": "de"}


def test_counts_and_table():
    lid = identification(TRUE, {"a": "de", "b": "nl", "c": "nl", "d": "en", "e": ""})
    assert lid["utterances"] == 5 and lid["correct"] == 2
    assert table(lid) == (
        ["true \\ found", "cy", "de", "nl", "en", "none"],
        [
            ["cy", "0", "0", "0", "1", "0"],
            ["de", "0", "1", "1", "0", "1"],
            ["nl", "0", "0", "1", "0", "0"],
        ],
    )
    assert describe(lid).endswith(
        "Most often wrong: cy as en 1, de as nl 1, de as none 1."
    ) and "2 of 5 utterances (40.0 %)" in describe(lid)


def test_all_right():
    lid = identification(TRUE, TRUE)
    assert lid["correct"] == 5 and "wrong" not in describe(lid)


def test_a_picture_is_the_same_from_the_same_figures(tmp_path):
    lid = identification(TRUE, {"a": "de", "b": "nl", "c": "nl", "d": "en"})
    for name in ("one.svg", "two.svg"):
        plot(lid, tmp_path / name)
    one, two = ((tmp_path / name).read_text() for name in ("one.svg", "two.svg"))
    assert one == two and one.count("<!-- 33 -->") == 3 and one.count("<!-- 100 -->") == 2
