"""The preparation of AN4: the real corpus, hostile archives, damaged and wrong folders."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from served import make_tar, serve

from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

RECIPE = Path(__file__).resolve().parents[2] / "egs/an4/asr1"


@pytest.fixture(autouse=True)
def local(monkeypatch):
    monkeypatch.syspath_prepend(RECIPE / "local")


@pytest.fixture
def an4(local):
    import an4

    return an4


@pytest.fixture
def corpus(test_data):
    folder = test_data / "an4"
    if not folder.is_dir():
        pytest.skip(f"no AN4 in {test_data}")
    return folder


@pytest.fixture
def server(tmp_path):
    """A folder that is served over HTTP, and its address."""
    with serve(tmp_path / "served") as (address, _):
        yield tmp_path / "served", address


def small_corpus(corpus, root, split="train", lines=3):
    """Copy the first lines of a list and their audio; return the corpus' root."""
    (root / "etc").mkdir(parents=True)
    for other in ("train", "test"):
        for kind in ("fileids", "transcription"):
            text = (corpus / f"etc/an4_{other}.{kind}").read_text().splitlines(keepends=True)
            (root / f"etc/an4_{other}.{kind}").write_text("".join(text[:lines]))
        for name in (root / f"etc/an4_{other}.fileids").read_text().split():
            wav = root / "wav" / f"{name}.wav"
            wav.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(corpus / "wav" / f"{name}.wav", wav)
    return root


def linked_corpus(corpus, root, copied):
    """Return a corpus whose speakers are links to the real ones, but for one that is a copy."""
    shutil.copytree(corpus / "etc", root / "etc")
    for speaker in corpus.glob("wav/*/*"):
        target = root / speaker.relative_to(corpus)
        target.parent.mkdir(parents=True, exist_ok=True)
        if speaker.name == copied:
            shutil.copytree(speaker, target)
        else:
            target.symlink_to(speaker.resolve())
    return root


def test_the_real_corpus_gives_the_official_sets(an4, corpus, tmp_path):
    an4.prepare(corpus, tmp_path)
    sets = {name: DataFolder.read(tmp_path / name) for name in ("train_nodev", "train_dev", "test")}
    counts = {name: len(folder.text) for name, folder in sets.items()}
    assert counts == {"train_nodev": 844, "train_dev": 104, "test": 130}
    people = {
        name: {speaker.rstrip("0123456789") for speaker in folder.utt2spk.values()}
        for name, folder in sets.items()
    }
    assert not people["train_nodev"] & people["train_dev"]
    assert not (people["train_nodev"] | people["train_dev"]) & people["test"]
    assert len(set(sets["test"].utt2spk.values())) == 10
    assert not any(folder.missing_audio() for folder in sets.values())
    assert sets["train_nodev"].text["fash-an251-fash-b"] == "YES"
    assert sets["test"].text["fcaw-an406-fcaw-b"] == "RUBOUT G M E F THREE NINE"
    words = " ".join(text for folder in sets.values() for text in folder.text.values())
    assert set(words) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    assert "  " not in words
    assert sum(len(text.split()) for text in sets["test"].text.values()) == 773
    assert set(sets["test"].utt2lang.values()) == {"en"}


def test_sessions_of_one_name_stay_together(an4):
    names = [f"m{letter}" for letter in "abcdefghi"] + ["mj", "mj2", "mk", "ml3"]
    assert an4.dev_speakers(names) == {"mj", "mj2"}


@pytest.mark.parametrize("damage", ["flip", "remove", "add"])
def test_a_changed_file_is_named_by_its_folder(an4, corpus, tmp_path, damage):
    root = linked_corpus(corpus, tmp_path / "an4", copied="mmxg")
    an4.verify(root)
    victim = sorted((root / "wav/an4test_clstk/mmxg").glob("*.wav"))[3]
    if damage == "flip":
        content = bytearray(victim.read_bytes())
        content[5000] ^= 1
        victim.write_bytes(content)
    elif damage == "remove":
        victim.unlink()
    else:
        shutil.copy(victim, victim.with_name("another.wav"))
    with pytest.raises(UserError, match="wav/an4test_clstk/mmxg differs"):
        an4.prepare(root, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_missing_speaker_and_a_changed_list_are_named(an4, corpus, tmp_path):
    root = linked_corpus(corpus, tmp_path / "an4", copied="mmxg")
    shutil.rmtree(root / "wav/an4test_clstk/mmxg")
    with open(root / "etc/an4_test.transcription", "a") as stream:
        stream.write("\n")
    with pytest.raises(UserError) as error:
        an4.verify(root)
    assert "wav/an4test_clstk/mmxg is missing" in str(error.value)
    assert "etc/an4_test.transcription differs" in str(error.value)
    assert "--no-check" in str(error.value)


def test_the_folder_sum_is_what_the_shell_prints(an4, corpus):
    folder = corpus / "wav/an4test_clstk/mmxg"
    printed = subprocess.run(
        "sha256sum * | sha256sum",
        shell=True,
        cwd=folder,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        text=True,
    )
    assert printed.stdout.split()[0] == an4.checksum(folder)


def test_lists_that_disagree_are_named_with_file_and_line(an4, corpus, tmp_path):
    root = small_corpus(corpus, tmp_path / "an4")
    texts, ids = root / "etc/an4_train.transcription", root / "etc/an4_train.fileids"
    good, listed = texts.read_text(), ids.read_text()
    assert len(an4.read_split(root, "train")) == 3
    texts.write_text(good.replace("an253-fash-b", "an999-fash-b"))
    with pytest.raises(UserError, match=r"an4_train\.fileids:2: .*an253-fash-b"):
        an4.read_split(root, "train")
    texts.write_text(good)
    # A list cannot name files outside the corpus.
    ids.write_text(listed.replace("an4_clstk/fash/an251", "../fash/an251"))
    with pytest.raises(UserError, match=r"fileids:1"):
        an4.read_split(root, "train")
    ids.write_text(listed)
    (root / "wav/an4_clstk/fash/an253-fash-b.wav").unlink()
    with pytest.raises(UserError, match=r"an4_train\.fileids:2: .*an253-fash-b\.wav is not there"):
        an4.read_split(root, "train")


def test_data_sh_reads_AN4_from_the_environment(corpus, tmp_path):
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONPATH": str(RECIPE.parents[2]),
    }
    command = [RECIPE / "local/data.sh", "--data_dir", tmp_path / "data"]

    def run(folder):
        environment["AN4"] = str(folder)
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    done = run(tmp_path / "not here")
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: AN4={tmp_path}/not here: no such folder")
    done = run(corpus)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "data/test/wav.scp").read_text().splitlines()) == 130


def test_downloads_fetches_unpacks_and_asks_once(an4, corpus, server, tmp_path, monkeypatch):
    served, address = server
    root = small_corpus(corpus, tmp_path / "small")
    files = [path for path in root.rglob("*") if path.is_file()]
    make_tar(served / "an4.tar.gz", {str(p.relative_to(root)): p.read_bytes() for p in files})
    monkeypatch.setattr(an4, "URL", f"{address}/an4.tar.gz")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="an4.tar.gz: not the AN4 .*run again to download it"):
        an4.find_corpus("downloads")
    assert list(Path("downloads").iterdir()) == []
    found = an4.find_corpus("downloads", check=False)
    assert found == Path("downloads/an4")
    assert [path.name for path in Path("downloads").iterdir()] == ["an4"]
    assert len(an4.read_split(found, "train")) == 3
    monkeypatch.setattr(an4, "URL", f"{address}/gone.tar.gz")
    assert an4.find_corpus("downloads") == found
    with pytest.raises(UserError, match="an4: not the AN4 .*remove it and fetch it again"):
        an4.prepare(found, tmp_path / "data")
