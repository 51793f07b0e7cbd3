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


def prepare(recipe, tmp_path, *options, **variables):
    (script,) = (EGS / recipe).glob("*/local/data.sh")
    toy = miniatures.TOYS.get(recipe, {}).get("local_data_opts", "").split()
    line = [str(script), "--nj=2", "--data_dir", str(tmp_path / "data"), *toy, *options]
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


def test_some_languages(tmp_path):
    root = corpora.fleurs(tmp_path / "fleurs", ["en_us", "tr_tr"])
    some = ["--languages", "tr_tr", "en_us", "tr_tr"]
    done = prepare("fleurs", tmp_path, *some, FLEURS=str(root))
    assert done.returncode == 0, done.stderr
    dev = DataFolder.read(tmp_path / "data/dev")
    assert sorted(dev.utt2lang.values()) == ["en_us", "en_us", "tr_tr", "tr_tr"]
    done = prepare("fleurs", tmp_path, "--languages", "all", FLEURS=str(root))
    assert done.returncode == 2 and "/af_za/train.tsv: no such file; egs/fleurs" in done.stderr
    done = prepare("fleurs", tmp_path, "--languages", "en_gb", FLEURS=str(root))
    assert done.returncode == 2 and "fleurs has no part 'en_gb-train'" in done.stderr
    root = corpora.commonvoice(tmp_path / "cv", ["cy"])
    done = prepare("commonvoice", tmp_path, "--languages", "all", COMMONVOICE=str(root))
    assert done.returncode == 2 and "commonvoice has no list of languages" in done.stderr


def test_three_corpora_together(tmp_path):
    done = prepare("mlma", tmp_path, **miniatures.make("mlma", tmp_path / "three"))
    assert done.returncode == 0, done.stderr
    train = DataFolder.read(tmp_path / "data/train")
    assert train.text["mls-de-10_20_000000"] == "als es anfing"
    assert train.utt2spk["mls-de-10_20_000000"] == "mls-de-10"
    assert sorted(set(train.utt2lang.values())) == sorted("nl fr de it pl es".split())
    assert {utt.partition("-")[0] for utt in train.text} == {"mls", "commonvoice", "voxpopuli"}
    texts = DataFolder.read(tmp_path / "data/commonvoice").text
    assert set(texts.values()) == {"wie geht's gut"}


def test_speech_and_its_translation(tmp_path):
    root = corpora.covost2(tmp_path / "covost2", "fr_en")
    done = prepare("covost2", tmp_path, COVOST2=str(root))
    assert done.returncode == 0, done.stderr
    dev = DataFolder.read(tmp_path / "data/dev")
    assert set(dev.text.values()) == {'"It is here," he said.'}
    assert (tmp_path / "data/dev/text.fr").read_text(encoding="utf-8").splitlines() == [
        f"common_voice_fr_173000{number} c'est ici dit il" for number in (20, 21)
    ]
    table = root / "fr/covost_v2.fr_en.tsv"
    table.write_text(table.read_text() + "common_voice_fr_1.mp3\tGone.\tdev\tfr_en\n")
    done = prepare("covost2", tmp_path, COVOST2=str(root))
    assert done.returncode == 0 and "1 of 9 clips are not in validated.tsv" in done.stderr
    for options, message in (
        (["--pair", "fr"], "--pair fr: write the languages of speech and text"),
        (["--pair", "fr_de"], "covost_v2.fr_de.tsv: no such file: https://github.com/facebook"),
    ):
        done = prepare("covost2", tmp_path, *options, COVOST2=str(root))
        assert done.returncode == 2 and message in done.stderr
    table.write_text("path\tsplit\n")
    done = prepare("covost2", tmp_path, COVOST2=str(root))
    assert done.returncode == 2 and "covost_v2.fr_en.tsv:1: no column translation" in done.stderr


def test_one_call_is_no_corpus(tmp_path):
    done = prepare("spgispeech", tmp_path, SPGISPEECH=str(corpora.spgispeech(tmp_path / "s", 3)))
    assert done.returncode == 2 and "train.csv: one call alone cannot be split" in done.stderr


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
    assert DataFolder.read(tmp_path / "data/dev_tr").text == folder.text
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


def test_fleurs_is_downloaded(tmp_path, monkeypatch):
    """Lists and audio, with the sums that the repository notes; what is there stays."""
    script = EGS / "fleurs/asr1/local/download.py"
    spec = importlib.util.spec_from_file_location("fleurs_download", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = corpora.fleurs(tmp_path / "made", ["en_us"])
    notes, files = tmp_path / "notes", tmp_path / "files"
    with serve(notes) as (noted, _), serve(files) as (address, asked):
        for split in ("train", "dev", "test"):
            archive = files / f"{split}.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(root / "en_us/audio" / split, split)
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
            (notes / archive.name).write_text(f"oid sha256:{digest}\n")
            for folder in (notes, files):
                (folder / f"{split}.tsv").write_bytes((root / f"en_us/{split}.tsv").read_bytes())
        (notes / "test.tar.gz").write_text(f"oid sha256:{64 * '0'}\n")
        monkeypatch.setattr(module, "NOTES", noted)
        monkeypatch.setattr(module, "FILES", address)
        with pytest.raises(UserError, match="test.tar.gz: its sha256 is .*run it again"):
            module.main([str(tmp_path / "got"), "--languages", "en_us"])
        (notes / "test.tar.gz").write_text(f"oid sha256:{digest}\n")
        module.main([str(tmp_path / "got"), "--languages", "en_us"])
        assert len(asked) == 7
        module.main([str(tmp_path / "got"), "--languages", "en_us"])
        assert len(asked) == 7
    found, made = (
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
        for folder in (tmp_path / "got", root)
    )
    assert found == made
    with pytest.raises(UserError, match="--languages en_gb: FLEURS has af_za, am_et"):
        module.main([str(tmp_path / "got"), "--languages", "en_us", "en_gb"])


def test_a_part_that_is_missing(tmp_path):
    root = corpora.librispeech(tmp_path / "LibriSpeech", ["train-clean-5"])
    done = prepare("mini_librispeech", tmp_path, MINI_LIBRISPEECH=str(root))
    assert done.returncode == 2
    assert "test-clean: no such folder; MINI_LIBRISPEECH=downloads ./run.sh" in done.stderr
