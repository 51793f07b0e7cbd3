"""Stage 1 of the big recipes, on small trees with their corpora's layouts."""

import hashlib
import importlib.util
import json
import re
import subprocess
import tarfile
from pathlib import Path

import corpora
import miniatures
import pytest
from recipes import environment
from served import serve

from mambaasr.data.folder import DataFolder
from mambaasr.errors import UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("lhotse") is None, reason="lhotse is not installed"
)
EGS = Path(__file__).resolve().parents[2] / "egs"


def prepare(recipe, tmp_path, **variables):
    line = [
        str(EGS / recipe / "asr1/local/data.sh"),
        "--nj=2",
        "--data_dir",
        str(tmp_path / "data"),
        *miniatures.TOYS.get(recipe, {}).get("local_data_opts", "").split(),
    ]
    env = environment() | variables
    return subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("recipe", miniatures.CORPORA)
def test_data_sh(recipe, tmp_path):
    done = prepare(recipe, tmp_path, **miniatures.make(recipe, tmp_path / "the corpus"))
    sets = miniatures.CORPORA[recipe][2]
    assert done.returncode == 0, done.stderr
    found = {name: DataFolder.read(tmp_path / "data" / name) for name in sets}
    assert {name: len(folder.utterances) for name, folder in found.items()} == sets
    assert all(folder.missing_audio() == [] for folder in found.values())


@pytest.mark.parametrize("recipe", miniatures.CORPORA)
def test_without_the_corpus_it_says_how_to_get_it(recipe, tmp_path):
    variable = miniatures.CORPORA[recipe][0].split()[0]
    done = prepare(recipe, tmp_path, **{variable: str(tmp_path / "nowhere")})
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert f"{tmp_path}/nowhere: no such folder" in done.stderr and done.stderr.count("\n") == 1
    # Those that can be downloaded say so.
    assert re.search(f"{variable}=FOLDER ./run.sh|'downloads' to download it", done.stderr)


def test_a_manifest_in_the_place_of_common_voice(tmp_path):
    corpora.write_audio(tmp_path / "small/audio/a.ogg")
    row = {"id": "a", "audio": "audio/a.ogg", "speaker": "s", "lang": "tr", "text": "Iğdır, İyi!"}
    rows = [row | {"split": split, "id": f"a{split}"} for split in ("train", "dev", "test")]
    manifest = tmp_path / "small/manifest.jsonl"
    manifest.write_text("".join(f"{json.dumps(each)}\n" for each in rows), encoding="utf-8")
    done = prepare("commonvoice_12", tmp_path, COMMONVOICE=str(tmp_path / "small"))
    assert done.returncode == 0, done.stderr
    folder = DataFolder.read(tmp_path / "data/dev")
    assert folder.text == {"tr-adev": "ığdır iyi"} and folder.utt2lang == {"tr-adev": "tr"}
    assert (tmp_path / "data/dev/text.raw").read_text() == "tr-adev Iğdır, İyi!\n"
    assert folder.missing_audio() == []
    manifest.write_text(json.dumps({**rows[0], "split": None}) + "\n{}\n")
    done = prepare("commonvoice_12", tmp_path, COMMONVOICE=str(tmp_path / "small"))
    assert done.returncode == 2 and "manifest.jsonl:2: a row with id, audio" in done.stderr


def test_mini_librispeech_is_downloaded(tmp_path, monkeypatch):
    """What is missing, whole and with the promised sum; what is there is not asked for again."""
    recipe = EGS / "mini_librispeech/asr1"
    monkeypatch.syspath_prepend(recipe / "local")
    spec = importlib.util.spec_from_file_location("mini_librispeech", recipe / "local/data.py")
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    parts = ["train-clean-5", "test-clean"]
    root = corpora.librispeech(tmp_path / "made/LibriSpeech", parts, numbers=[226, 19])
    monkeypatch.chdir(tmp_path)
    with serve(tmp_path / "served") as (address, asked):
        archives = {}
        for part in parts:
            path = tmp_path / "served" / f"{part}.tar.gz"
            with tarfile.open(path, "w:gz") as tar:
                tar.add(root / part, f"LibriSpeech/{part}")
                tar.add(root / part, "LibriSpeech/README.TXT", recursive=False)
            archives[part] = address, f"md5:{hashlib.md5(path.read_bytes()).hexdigest()}"
        monkeypatch.setattr(data, "ARCHIVES", archives | {"test-clean": (address, "md5:0")})
        with pytest.raises(UserError, match="test-clean.tar.gz: its md5 is .*MINI_LIBRISPEECH"):
            data.fetch(Path("downloads"))
        monkeypatch.setattr(data, "ARCHIVES", archives)
        assert data.fetch(Path("downloads")) == Path("downloads/LibriSpeech")
        assert [path for path, _ in asked] == [
            "/train-clean-5.tar.gz",
            "/test-clean.tar.gz",
            "/test-clean.tar.gz",
        ]
        data.fetch(Path("downloads"))
        assert len(asked) == 3
    names = sorted(path.name for path in Path("downloads").rglob("*.flac"))
    assert names == sorted(path.name for path in root.rglob("*.flac"))
    assert [path.name for path in Path("downloads").iterdir()] == ["LibriSpeech"]


def test_a_part_that_is_missing(tmp_path):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["train-clean-5"])
    done = prepare("mini_librispeech", tmp_path, MINI_LIBRISPEECH=str(root))
    assert done.returncode == 2
    assert "test-clean: no such folder; MINI_LIBRISPEECH=downloads ./run.sh" in done.stderr
