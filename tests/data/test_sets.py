"""Faults that only a look at all sets finds."""

import numpy as np
import pytest
import soundfile

from mambaasr.bin.check_sets import main
from mambaasr.data.folder import DataFolder
from mambaasr.data.format import format_folder
from mambaasr.data.sets import check_sets
from mambaasr.data.tokens import make_tokens, train_sentencepiece


@pytest.fixture
def folder(tmp_path):
    """A function that writes a formatted set: id -> (text, seed of its noise)."""

    def make(name, utterances, level=0.1):
        data = DataFolder()
        for utt, (text, seed) in utterances.items():
            path = tmp_path / "corpus" / name / f"{utt}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(seed).standard_normal(4000) * level
            soundfile.write(path, noise, 16000, subtype="FLOAT")
            data.wav[utt], data.text[utt], data.utt2spk[utt] = str(path), text, name
        data.write(tmp_path / "data" / name)
        format_folder(tmp_path / "data" / name, tmp_path / "dump" / name, 16000)
        return tmp_path / "dump" / name

    return make


def tokens(train, tmp_path, token_type, *options):
    make_tokens([train / "text"], tmp_path / "tokens", token_type, *options)
    model = tmp_path / "tokens/bpe.model" if token_type == "bpe" else None
    return tmp_path / "tokens/tokens.txt", token_type, model


TRAIN = {f"a{i}": (text, i) for i, text in enumerate(["ONE TWO", "THREE FOUR", "FIVE SIX SEVEN"])}


@pytest.mark.parametrize("token_type, options", [("char", ()), ("word", ()), ("bpe", (18,))])
def test_sets_that_fit_each_other(folder, tmp_path, token_type, options):
    train = folder("train", TRAIN)
    test = folder("test", {"b1": ("TWO SIX", 10), "b2": ("", 11)}, level=0.02)
    assert check_sets(train, [test], *tokens(train, tmp_path, token_type, *options)) == []


def test_ids_audio_case_and_level(folder, tmp_path, caplog):
    train = folder("train", TRAIN)
    shared = folder("shared", {"a1": ("ONE", 20), "b2": ("TWO", 2)})
    soft = folder("soft", {"c1": ("one two", 30), "c2": ("three", 31)}, level=0.008)
    found = check_sets(train, [shared, soft], *tokens(train, tmp_path, "char"))
    assert found == caplog.messages and len(found) == 5
    known = folder("known", {"train1": ("ONE", 50)})
    (known / "utt2spk").write_text("train1 train\n")
    (voices,) = check_sets(train, [known], *tokens(train, tmp_path, "char"))
    assert voices.startswith(f"{known}: 1 of 1 speakers are also in {train} (first train)")
    assert found[0].startswith(f"{shared}: 1 of 2 ids are also in {train} (first a1)")
    assert "the audio of 1 of 2 utterances" in found[1] and "(first b2, there a2)" in found[1]
    assert "0% of the letters are capitals" in found[2] and "100% (first c1 'one two')" in found[2]
    assert "2 of 2 utterances are more than 20 dB louder or softer" in found[3]
    assert found[4].startswith(f"{soft}/text: 11 of 12 characters have no token")


@pytest.mark.parametrize("token_type, options", [("char", ()), ("word", ()), ("bpe", (18,))])
def test_what_has_no_token_is_counted_by_set(folder, tmp_path, token_type, options):
    train = folder("train", TRAIN)
    dev = folder("dev", {"b1": ("CAF\u00c9 \u00c9T\u00c9", 10), "b2": ("ONE", 11)})
    (found,) = check_sets(train, [train, dev], *tokens(train, tmp_path, token_type, *options))
    # A and C are no letters of the training set.
    what = "2 of 3 words" if token_type == "word" else "5 of 11 characters"
    assert found.startswith(f"{dev}/text: {what} have no token (")
    assert "in 1 of 2 texts (first b1)" in found
    assert token_type == "word" or "'\u00c9' 3" in found


def test_texts_that_tokens_change(folder, tmp_path):
    texts = {"a1": ("\u00bd CUP <noise>", 1), "a2": ("ONE TWO", 2), "a3": ("THREE CUPS", 3)}
    train = folder("train", texts)
    (tmp_path / "nlsyms.txt").write_text("<noise>\n")
    options = ["--train", train, "--token_list", tmp_path / "tokens/tokens.txt", "--token_type"]
    options += ["bpe", "--bpemodel", tmp_path / "tokens/bpe.model", "--output", tmp_path / "said"]
    options = [*map(str, options), "--nlsyms_txt", str(tmp_path / "nlsyms.txt")]
    tokens(train, tmp_path, "bpe", 19, "unigram", tmp_path / "nlsyms.txt")
    assert main(options) == 0 and (tmp_path / "said").read_text() == ""
    old = train_sentencepiece(
        [text for text, _ in texts.values()], 19, symbols=["<noise>"], normalization="nmt_nfkc"
    )
    (tmp_path / "tokens/bpe.model").write_bytes(old[0])
    assert main(options) == 0
    (line,) = (tmp_path / "said").read_text().splitlines()
    assert f"{train}/text: 1 of 3 texts do not come back from the tokens: a1" in line
    assert "as '1\u20442 CUP" in line
