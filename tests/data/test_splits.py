import pytest

from mambaasr.bin.split_data import main
from mambaasr.data.splits import files_of, split_lists
from mambaasr.errors import UserError


@pytest.fixture
def lists(tmp_path):
    """Two lists of five utterances, and the shapes of four."""
    for name in ("wav.scp", "text"):
        lines = [f"utt{i} {name} {i}\n" for i in range(5)]
        (tmp_path / name).write_text("".join(lines))
    (tmp_path / "text").write_text((tmp_path / "text").read_text().replace(" text 3", ""))
    (tmp_path / "shape").write_text("utt0 5\nutt1 5\nutt3 5\nutt4 5\n")
    return [f"{tmp_path}/{name}" for name in ("wav.scp", "text", "shape")]


def test_every_utterance_is_in_one_part(lists, tmp_path, capsys):
    words = ["--scps", *lists, "--keys", lists[2], "--num_splits", "3"]
    for _ in range(2):
        assert main([*words, "--output_dir", f"{tmp_path}/out"]) == 0
    assert "4 utterances in 3 parts" in capsys.readouterr().out
    parts = files_of(f"{tmp_path}/out/text")
    assert parts == [f"{tmp_path}/out/text/split.{i}" for i in range(3)]
    said = [open(path).read() for path in parts]
    assert said == ["utt0 text 0\nutt4 text 4\n", "utt1 text 1\n", "utt3\n"]
    said = [open(path).read() for path in files_of(f"{tmp_path}/out/wav.scp")]
    assert said == ["utt0 wav.scp 0\nutt4 wav.scp 4\n", "utt1 wav.scp 1\n", "utt3 wav.scp 3\n"]
    assert files_of(lists[0]) == [lists[0]]


def test_what_is_wrong(lists, tmp_path):
    paths = {"text": lists[1]}
    for count in (0, 5):
        with pytest.raises(UserError, match=f"4 utterances in {count} parts"):
            split_lists(paths, lists[2], count, tmp_path / "out")
    (tmp_path / "shape").write_text("utt0 5\nutt7 5\n")
    with pytest.raises(UserError, match="text: 'utt7' of .*shape is missing"):
        split_lists(paths, lists[2], 2, tmp_path / "out")
    # A run that was killed: ESPnet would train on what is there.
    (tmp_path / "out/text").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder, and no list that was split"):
        files_of(tmp_path / "out/text")
    with pytest.raises(UserError, match="two lists have one name"):
        main(["--scps", lists[1], lists[1], "--keys", lists[2], "--num_splits", "2"]
             + ["--output_dir", str(tmp_path)])  # fmt: skip
