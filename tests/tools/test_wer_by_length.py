"""tools/wer_by_length.py joins each speaker's utterances, and counts all words."""

import importlib.util
from pathlib import Path

import pytest
from tiny_asr import OURS, an4, make_experiment

from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "wer_by_length.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("wer_by_length", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_utterances_of_a_speaker_are_joined_in_their_order(tool):
    speakers = {"a1": "a", "b1": "b", "a2": "a", "a3": "a"}
    lengths = dict.fromkeys(speakers, 2.0)
    assert tool.join(speakers, speakers, lengths, 0) == [["a1"], ["a2"], ["a3"], ["b1"]]
    assert tool.join(speakers, speakers, lengths, 4) == [["a1", "a2"], ["a3"], ["b1"]]
    assert tool.join(speakers, speakers, lengths, 60) == [["a1", "a2", "a3"], ["b1"]]


def test_a_table(tool, test_data, tmp_path, capsys):
    _, weights = make_experiment(tmp_path / "exp", **OURS)
    wavs = an4(test_data, 4)
    folder = DataFolder(wav=wavs, text=dict.fromkeys(wavs, "ONE"), utt2spk=dict.fromkeys(wavs, "s"))
    folder.write(tmp_path / "data")
    command = [str(weights), str(tmp_path / "data"), "--seconds", "0", "60", "--beam_size", "2"]
    assert tool.main([*command, "--ways", "one_pass,ctc_greedy", "vad,joint"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("4 recordings of ") and lines[1].startswith("1 recordings of ")
    header, _, *rows = [line.split("|")[1:-1] for line in lines if line.startswith("|")]
    assert [cell.strip() for cell in header] == [
        "recordings of",
        "one_pass,ctc_greedy",
        "vad,joint",
    ]
    # A random model hits no word, and each of the four counts.
    assert [float(row[1].split("(")[0]) >= 100 for row in rows] == [True, True]
    with pytest.raises(UserError, match="--ways: write LONG,SEARCH"):
        tool.main([*command, "--ways", "auto"])
