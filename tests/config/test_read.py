"""Yaml files and ``*_conf`` options: values, places, and what yaml would read without complaint."""

import pytest
import yaml

from mambaasr.config import Config, read
from mambaasr.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Return a function that writes train.yaml."""

    def write(text):
        path = tmp_path / "train.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_every_value_has_its_place(write):
    path = write("seed: 1\nencoder_conf:\n  x: &a {y: 4.00}\n  z:\n    <<: *a\n    y: 3\n")
    config = read(path)
    assert config == {"seed": 1, "encoder_conf": {"x": {"y": 4.0}, "z": {"y": 3}}}
    assert config.where("encoder_conf", "z", "y") == f"{path}: line 6"
    assert config.where("encoder_conf", "none", "y") == f"{path}: line 2"
    assert config.where("none") == str(path)
    assert config.texts["encoder_conf", "x", "y"] == "4.00"
    assert read(write("")) == {}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed: 1\nseed: 2\n", ["line 2: ", "`seed` is given twice", "line 1"]),
        ("a_conf:\n  x: 1\n  x: 1\n", ["line 3: ", "`x` is given twice"]),
        ("encoder: conformer\n bad indentation: x\n", ["line 2: not valid yaml"]),
        ("a: !!python/object/apply:os.system [false]\n", ["line 1: not valid yaml"]),
        ("x: 2024-13-45\n", ["train.yaml: not valid yaml", "month"]),
        ("x: &a\n- *a\n", ["in itself"]),
        ("a: " + "[" * 5000, ["nested too deeply"]),
        ("x_conf:\n  lr: 1e-3\n", ["line 2: ", "1e-3 as text", "write 1.0e-3"]),
        ("x_conf:\n  x:\n  - 1e2\n", ["line 3: ", "write 1.0e+2"]),
        ("x_conf: {x: 2.5E6}\n", ["line 1: ", "write 2.5e+6"]),
        ("x_conf:\n  x: None\n", ["line 2: ", "write null"]),
        ("- a\n- b\n", ["option: value"]),
        (b"encoder: \xff\xfe\n", ["cannot be read"]),
    ],
)
def test_mistakes(write, text, parts):
    with pytest.raises(UserError) as caught:
        read(write(text))
    for part in ["train.yaml: ", *parts]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="none.yaml: no such config file"):
        read(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)


def test_tokens_may_look_like_numbers(write):
    """ESPnet's config.yaml of an experiment writes such tokens without quotes."""
    path = write(yaml.safe_dump({"token_list": ["<blank>", "1e5", "None", "2E-3"]}))
    assert "- 1e5\n" in path.read_text()
    assert read(path)["token_list"] == ["<blank>", "1e5", "None", "2E-3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x=0.1", {"x": 0.1, "a": {"b": 1}}),
        ("a.c={d: true}", {"x": 1, "a": {"b": 1, "c": {"d": True}}}),
        ("x.y=2", {"x": {"y": 2}, "a": {"b": 1}}),
        ("x=", {"x": "", "a": {"b": 1}}),
        ("{'x': 1, \"y\": [z]}", {"x": 1, "y": ["z"], "a": {"b": 1}}),
        ("{x: 'y=z'}", {"x": "y=z", "a": {"b": 1}}),
        ("x: 34.5", {"x": 34.5, "a": {"b": 1}}),
    ],
)
def test_forms_of_a_conf(text, expected):
    config = Config("x.yaml", {"encoder_conf": {"x": 1, "a": {"b": 1}}})
    laid = config.copy()
    laid.lay_over("encoder_conf", text)
    assert laid["encoder_conf"] == expected
    assert "--encoder_conf" in laid.places.values()
    assert config["encoder_conf"] == {"x": 1, "a": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("lr=1e-3", "write 1.0e-3"),
        ("{'lr': 1e-3}", "write 1.0e-3"),
        ("{'lr': None}", "write null"),
        ("a.b=!!python/object/apply:os.system ['false']", "not valid yaml"),
        ("lr=[", "not valid yaml"),
        ("lr", "write key=value"),
    ],
)
def test_mistakes_in_a_conf(text, part):
    with pytest.raises(UserError, match=f"^--optim_conf.*: .*{part}") as caught:
        Config("x.yaml").lay_over("optim_conf", text)
    assert "\n" not in str(caught.value)
