"""Tests of mambaasr.data.json_list."""

import json

import pytest

from mambaasr.data.json_list import json_items
from mambaasr.errors import UserError

ITEMS = [{"a": '} ] "quoted" \\'}, [1, {"b": []}], 12345, "ü [", None, {}, -1.5e3, {"x": "y" * 100}]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("indent", [None, 3])
def test_items_are_those_of_the_whole_file(tmp_path, size, indent):
    path = tmp_path / "a.json"
    content = {"before": {"deep": ["x"]}, "items": ITEMS, "after": [1]}
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert list(json_items(path, "items", size)) == ITEMS
    assert list(json_items(path, "after", size)) == [1]


def test_an_empty_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"items" : [ ] }')
    assert list(json_items(path, "items", 2)) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"items": [1, {"a": 2', 'a.json: the list "items" breaks off, or is no JSON'),
        ('{"items": [1, nonsense, 2]}', 'a.json: the list "items" breaks off, or is no JSON'),
        ('{"others": [1]}', 'a.json: it has no list "items"'),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(json_items(path, "items", 4))
