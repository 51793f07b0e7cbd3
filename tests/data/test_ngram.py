import sys

import pytest

from mambaasr.data.ngram import train_ngram
from mambaasr.data.tokens import make_tokens, read_tokens
from mambaasr.errors import UserError
from mambaasr.lm.arpa import read_arpa

TEXT = "u1 ONE TWO\nu2 TWO <noise> ONE\nu3\nu4 ONE\n"


@pytest.fixture
def recipe(tmp_path):
    """A folder with a text, symbols, and a list of tokens of each type."""
    (tmp_path / "text").write_text(TEXT)
    (tmp_path / "symbols").write_text("<noise>\n")
    for kind in ("char", "word", "bpe"):
        make_tokens(
            [tmp_path / "text"], tmp_path / kind, kind, nbpe=12, nlsyms_txt=tmp_path / "symbols"
        )
    return tmp_path


def train(recipe, kind="char", **more):
    options = dict(
        text=recipe / "text",
        token_list=recipe / kind / "tokens.txt",
        out=recipe / "exp/x.arpa",
        token_type=kind,
        bpemodel=recipe / kind / "bpe.model",
        nlsyms_txt=recipe / "symbols",
        lmplz="",
    )
    return train_ngram(**options | more)


def ngrams(recipe, kind="char"):
    """Return the n-grams of two tokens and more, as texts."""
    tokens = read_tokens(recipe / kind / "tokens.txt")
    orders = read_arpa(recipe / "exp/x.arpa", tokens)
    return {" ".join(tokens[i] for i in words) for grams in orders[1:] for words in grams.words}


LMPLZ = f"""#!{sys.executable}
import sys
from pathlib import Path
text = sys.stdin.read()
if "FAIL" in text:
    sys.exit(3)
Path({{place!r}}, "said").write_text(" ".join(sys.argv[1:]) + "\\n" + text)
print("the model")
"""


@pytest.fixture
def lmplz(recipe, monkeypatch):
    """A program of that name on the PATH, which writes down what it is given."""
    program = recipe / "programs/lmplz"
    program.parent.mkdir()
    program.write_text(LMPLZ.format(place=str(recipe)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return program


@pytest.mark.parametrize(
    ("kind", "there", "tokens"),
    [
        ("char", "O <space> <noise>", 19),
        ("word", "TWO <noise> ONE", 6),
        ("bpe", "<noise>", None),
    ],
)
def test_tokens_of_each_type(recipe, kind, there, tokens):
    said = train(recipe, kind)
    assert any(there in each for each in ngrams(recipe, kind))
    assert "(0 of them <unk>) in 3 texts, by mambaasr" in said
    assert tokens is None or f"of {tokens} tokens" in said


def test_texts_of_other_tokens(recipe):
    """What has no token is <unk>, and the words around it are its neighbours."""
    (recipe / "text").write_text(TEXT + "u5 ONE THREE TWO\nu6 <sos/eos> ONE\n")
    assert "(2 of them <unk>) in 5 texts" in train(recipe, "word")
    found = ngrams(recipe, "word")
    assert {"ONE <unk> TWO", "<sos/eos> <unk> ONE"} <= found and "ONE TWO <sos/eos>" in found


@pytest.mark.parametrize("program", [False, True])
@pytest.mark.parametrize(
    ("kind", "of", "message"),
    [
        ("word", "char", r"5 of 6 tokens of --token_type word are not in .*char"),
        ("char", "bpe", r"text:1: .*bpe/tokens.txt has no <space>"),
        ("bpe", "char", r"char/tokens.txt: no token begins with"),
    ],
)
def test_texts_of_another_type_of_token(kind, of, message, program, recipe, lmplz):
    """A model that the recogniser could not use is refused, and nothing is left of it."""
    tokens = recipe / of / "tokens.txt"
    with pytest.raises(UserError, match=message):
        train(recipe, kind, token_list=tokens, lmplz=str(lmplz) if program else "")
    assert not list((recipe / "exp").glob("*") if (recipe / "exp").exists() else ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"u1\nu2 \n", "text: no text to estimate an n-gram model on"),
        (b"u1 ONE\nu2 \xff\n", "text:2: the line is not UTF-8"),
    ],
)
def test_bad_texts(recipe, text, message):
    (recipe / "text").write_bytes(text)
    with pytest.raises(UserError, match=message):
        train(recipe)
    assert not list((recipe / "exp").glob("*") if (recipe / "exp").exists() else ())


def test_kenlms_program_is_taken_where_it_is(recipe, lmplz):
    (recipe / "text").write_text(TEXT + "u5 ONE THREE\n")
    said = train(recipe, "word", order=4, lmplz=None)
    assert said.endswith(f"in 4 texts, by {lmplz}") and "(1 of them <unk>)" in said
    assert (recipe / "exp/x.arpa").read_text() == "the model\n"
    words, *lines = (recipe / "said").read_text().splitlines()
    # <unk>, ONE, TWO, <noise>, </s>; in a text lmplz allows no <unk>
    assert "--order 4 --discount_fallback" in words and "--vocab_pad 5" in words
    assert lines == ["ONE TWO", "TWO <noise> ONE", "ONE", "ONE <other>"]


def test_kenlms_program_fails(recipe, lmplz):
    (recipe / "text").write_text("u1 FAIL\n")
    make_tokens([recipe / "text"], recipe / "word", "word")
    with pytest.raises(UserError, match="lmplz failed with status 3"):
        train(recipe, "word", lmplz=None)
    with pytest.raises(UserError, match="no/lmplz: cannot be run: No such file"):
        train(recipe, "word", lmplz="no/lmplz")
    assert not list((recipe / "exp").iterdir())
