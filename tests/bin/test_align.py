"""Tests of mambaasr align."""

import json

import pytest
from tiny_asr import OURS, an4, make_experiment

from mambaasr.bin.align import main
from mambaasr.errors import UserError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_experiment(tmp_path_factory.mktemp("exp"), **OURS)[1])


def test_times_of_a_text(model, test_data, tmp_path, capsys):
    path = str(max(an4(test_data, 6).values()))
    assert main([path, "ONE TWO", "--model", model]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[4] for line in lines] == ["ONE", "TWO"]
    first, second = ((float(line[2]), float(line[3])) for line in lines)
    assert 0 <= first[0] and sum(first) <= second[0] + 1e-3
    (tmp_path / "text").write_text("ONE\n TWO\n")
    assert main([path, str(tmp_path / "text"), "--model", model, "-f", "json"]) == 0
    (segment,) = json.loads(capsys.readouterr().out)["segments"]
    assert [word["word"] for word in segment["words"]] == ["ONE", "TWO"]
    assert segment["words"][1]["start"] == pytest.approx(second[0], abs=2e-3)
    for text, message in (
        ("ONE två TWO", r"\.wav: the model's tokens cannot spell två"),
        ("ONE " * 200, r"\.wav: 799 tokens do not fit \d+ frames"),
        (" ", "there is no text"),
    ):
        with pytest.raises(UserError, match=message):
            main([path, text, "--model", model])
    with pytest.raises(UserError, match="gone.wav: no such file"):
        main([str(tmp_path / "gone.wav"), "ONE", "--model", model])
