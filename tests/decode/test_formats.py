"""Transcripts as files: strict readers take them, whatever is in them."""

import json
import re

import pytest

from mambaasr.decode.formats import FORMATS, Layout, write
from mambaasr.decode.transcript import Segment, Transcript, Word, join

CLOCK = r"\d\d+:[0-5]\d:[0-5]\d"


def transcript():
    words = [Word("to", 3599.9, 3600.0, 0.5), Word("be", 3600.0, 3600.4, 1.0)]
    words += [Word("<or>", 3600.5, 3601.0, 0.25), Word("not", 3601.0, 3601.2, 0.75)]
    return Transcript(
        "a talk.mp3",
        [
            Segment(0, 0.0, 0.5),
            Segment(1, 3599.9, 3601.5, "to be <or> not", words, -3.0, 3, [("to be", -3.0)]),
            Segment(2, 3601.2, 3602.0, "& now"),
        ],
        3602.0,
        36.02,
        "windows",
    )


def srt(text):
    """Read SubRip strictly; return (start, end, lines) of each subtitle."""
    found = []
    for number, block in enumerate(text.removesuffix("\n\n").split("\n\n") if text else (), 1):
        head, times, *lines = block.split("\n")
        assert head == str(number) and lines and all(lines)
        assert re.fullmatch(rf"{CLOCK},\d\d\d --> {CLOCK},\d\d\d", times)
        found.append((*times.split(" --> "), lines))
    return found


def vtt(text):
    """Read WebVTT strictly."""
    head, *blocks = text.removesuffix("\n\n").split("\n\n")
    assert head.strip() == "WEBVTT" and text.startswith("WEBVTT\n\n")
    found = []
    for block in filter(None, blocks):
        times, *lines = block.split("\n")
        assert re.fullmatch(rf"{CLOCK}\.\d\d\d --> {CLOCK}\.\d\d\d", times) and lines
        assert not re.search(r"-->|<|&(?!amp;|lt;|gt;)", "\n".join(lines))
        found.append((*times.split(" --> "), lines))
    return found


def test_subtitles():
    made = FORMATS["srt"](transcript(), Layout())
    assert srt(made) == [
        ("00:59:59,900", "01:00:01,200", ["to be <or> not"]),
        ("01:00:01,200", "01:00:02,000", ["& now"]),
    ]
    assert vtt(FORMATS["vtt"](transcript(), Layout()))[0][2] == ["to be &lt;or&gt; not"]


def test_subtitles_of_a_width():
    made = srt(FORMATS["srt"](transcript(), Layout(6, 1)))
    assert [lines for _, _, lines in made] == [["to be"], ["<or>"], ["not"], ["& now"]]
    assert made[1][:2] == ("01:00:00,500", "01:00:01,000")
    made = srt(FORMATS["srt"](transcript(), Layout(6, 2)))
    assert [lines for _, _, lines in made] == [["to be", "<or>"], ["not"], ["& now"]]
    made = srt(FORMATS["srt"](transcript(), Layout(6)))
    assert [lines for _, _, lines in made] == [["to be", "<or>", "not"], ["& now"]]


def test_tables():
    assert FORMATS["tsv"](transcript(), Layout()).splitlines() == [
        "start\tend\ttext",
        "3599900\t3601500\tto be <or> not",
        "3601200\t3602000\t& now",
    ]
    ctm = FORMATS["ctm"](transcript(), Layout()).splitlines()
    assert ctm[2] == "a_talk.mp3 1 3600.500 0.500 <or> 0.250" and len(ctm) == 4
    assert FORMATS["stm"](transcript(), Layout()).splitlines()[1] == (
        "a_talk.mp3 1 a_talk.mp3 3601.200 3602.000 & now"
    )
    assert FORMATS["txt"](transcript(), Layout()) == "to be <or> not\n& now\n"


def test_names_stay_apart():
    for name, written in (("m.v1", "m.v1"), ("a b/c", "a_b_c"), ("", "-")):
        made = Transcript(name, transcript().segments)
        assert FORMATS["ctm"](made, Layout()).split()[0] == written


def test_json_as_whispers(tmp_path):
    files = write(transcript(), tmp_path / "a.b", ["json", "txt"], more={"model": "m"})
    assert [file.name for file in files] == ["a.b.json", "a.b.txt"]
    content = json.loads(files[0].read_text())
    assert content["text"] == "to be <or> not & now" and content["model"] == "m"
    assert content["rtf"] == pytest.approx(0.01)
    segment = content["segments"][1]
    assert {"id", "start", "end", "text", "avg_logprob", "words"} <= segment.keys()
    assert segment["avg_logprob"] == -0.75
    assert segment["words"][0] == {"word": "to", "start": 3599.9, "end": 3600.0, "probability": 0.5}


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_said_is_a_valid_file(name):
    text = FORMATS[name](Transcript("a", [Segment(0, 0.0, 1.0)], 1.0), Layout(10, 2))
    assert {"srt": srt, "vtt": vtt}.get(name, len)(text) in ([], 0) or name in ("json", "tsv")


def test_texts_of_neighbours_are_joined_as_their_script_is_written():
    assert join(["one", "", "two"]) == "one two"
    assert join(["你好", "世界", "ok", "好"]) == "你好世界 ok 好"
    assert join(["안녕 하세요", "저는"]) == "안녕 하세요 저는"
    assert join(["สวัสดี", "ครับ"]) == "สวัสดีครับ" and join(["すみ", "ません"]) == "すみません"
