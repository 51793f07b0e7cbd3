import pytest
import sentencepiece

from mambaasr.data.tokens import (
    make_tokens,
    read_tokens,
    split_characters,
    tokenizer,
    train_sentencepiece,
)
from mambaasr.errors import UserError

TEXT = """u1 ONE TWO THREE FOUR FIVE
u2 SIX SEVEN EIGHT NINE TEN
u3 <noise> ONE HUNDRED AND ONE
u4
u5 FOUR HUNDRED SEVENTEEN
"""


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").write_text(TEXT)
    return tmp_path / "text"


@pytest.fixture
def symbols(tmp_path):
    # With a blank line: the tokenizer of ESPnet 202511 never ended on it.
    (tmp_path / "nlsyms.txt").write_text("<noise>\n\n<noise2>\n")
    return tmp_path / "nlsyms.txt"


def tokens(folder):
    lines = (folder / "tokens.txt").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert lines[:2] == ["<blank>", "<unk>"] and lines[-1] == "<sos/eos>"
    assert len(set(lines)) == len(lines)
    return lines[2:-1]


def test_characters(text, symbols, tmp_path):
    summary = make_tokens([text], tmp_path / "out", "char", nlsyms_txt=symbols)
    found = tokens(tmp_path / "out")
    assert set(found) == set("".join(TEXT.split("<noise>")).replace("\n", "")) - set("u12345 ") | {
        "<space>",
        "<noise>",
    }
    assert found[0] == "E" and f"{len(found) + 3} tokens (char), 4 texts" in summary


def test_characters_are_espnets(text, symbols, tmp_path):
    from espnet2.text.char_tokenizer import CharTokenizer

    make_tokens([text], tmp_path / "out", "char", nlsyms_txt=symbols)
    tokenizer = CharTokenizer(symbols)
    for line in TEXT.splitlines():
        transcript = line[3:]
        assert split_characters(transcript, ["<noise>"]) == tokenizer.text2tokens(transcript)
        assert set(tokenizer.text2tokens(transcript)) <= set(tokens(tmp_path / "out"))


def test_words(text, tmp_path):
    make_tokens([text, text], tmp_path / "out", "word")
    found = tokens(tmp_path / "out")
    assert set(found) == {word for line in TEXT.splitlines() for word in line.split()[1:]}
    assert found[0] == "ONE" and found[1:3] == ["FOUR", "HUNDRED"]


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_bpe_and_its_model_agree(text, symbols, tmp_path, mode, capfd):
    out = tmp_path / "with space, 'quote' $(touch x)"
    make_tokens([text], out, "bpe", 32, mode, symbols)
    found = tokens(out)
    assert len(found) + 3 == 32 and {"<noise>", "<noise2>"} <= set(found)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "bpe.model"))
    pieces = processor.encode("FOUR <noise> HUNDRED SIX", out_type=str)
    assert "<noise>" in pieces and set(pieces) <= set(found)
    assert processor.decode(pieces) == "FOUR <noise> HUNDRED SIX"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_bpe_is_the_same_every_time(text, tmp_path, mode):
    for name in ("a", "b"):
        make_tokens([text], tmp_path / name, "bpe", 30, mode)
    for file in ("tokens.txt", "bpe.model"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_bpe_of_recorded_transcripts_is_read_by_espnet(an4, tmp_path):
    from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer

    make_tokens([an4 / "text"], tmp_path / "out", "bpe", 40)
    tokenizer = SentencepiecesTokenizer(tmp_path / "out/bpe.model")
    for line in (an4 / "text").read_text().splitlines():
        pieces = tokenizer.text2tokens(line.split(maxsplit=1)[1])
        assert set(pieces) <= set(tokens(tmp_path / "out"))
        assert tokenizer.tokens2text(pieces) == line.split(maxsplit=1)[1]


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_too_many_units_for_the_corpus(text, tmp_path, mode):
    with pytest.raises(UserError, match=r"--nbpe 5000 is too large.* (\d+) units at most") as error:
        make_tokens([text], tmp_path / "out", "bpe", 5000, mode)
    most = int(str(error.value).split("sentencepiece finds ")[1].split()[0])
    make_tokens([text], tmp_path / "out", "bpe", most, mode)
    assert len(tokens(tmp_path / "out")) + 3 == most


def test_long_sentences_count(tmp_path):
    (tmp_path / "text").write_text("a " + "ABBA " * 1000 + "XYZ\n")
    make_tokens([tmp_path / "text"], tmp_path / "out", "bpe", 9)
    assert {"X", "Y", "Z"} <= set("".join(tokens(tmp_path / "out")))


def test_another_type_leaves_no_old_model(text, tmp_path):
    make_tokens([text], tmp_path / "out", "bpe", 30)
    make_tokens([text], tmp_path / "out", "char")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tokens.txt"]


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "no transcripts"),
        (b"a ONE\nb \xff\n", "text:2: .*not UTF-8"),
    ],
)
def test_bad_transcripts(tmp_path, content, what):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(UserError, match=what):
        make_tokens([tmp_path / "text"], tmp_path / "out", "char")
    assert not (tmp_path / "out").exists()


COMPATIBLE = (
    "u1 \u00bd CUP\nu2 \ufb01VE\nu3 \uff11\uff12\nu4 \uff76\uff9e\nu5 ONE TWO\tTHREE\u3000FOUR\n"
)


def test_new_models_take_texts_as_they_are_and_old_ones_stay(tmp_path):
    (tmp_path / "text").write_text(COMPATIBLE, encoding="utf-8")
    texts = [" ".join(line.split()[1:]) for line in COMPATIBLE.splitlines()]

    def again(folder):
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "bpe.model"))
        return [model.decode(model.encode(text)) for text in texts]

    make_tokens([tmp_path / "text"], tmp_path / "new", "bpe", 23)
    assert again(tmp_path / "new") == texts
    (tmp_path / "old").mkdir()
    old = train_sentencepiece(texts, 23, normalization="nmt_nfkc")[0]
    (tmp_path / "old/bpe.model").write_bytes(old)
    make_tokens([tmp_path / "text"], tmp_path / "old", "bpe", 23)
    assert (tmp_path / "old/bpe.model").read_bytes() == old
    assert again(tmp_path / "old")[0] == "1\u20442 CUP"


def test_tokenizer_gives_what_the_list_has(text, symbols, tmp_path):
    """Of each type: the tokens of a text, and the list that is read again."""
    transcript = "ONE <noise> TWO"
    for kind in ("char", "word", "bpe"):
        folder = tmp_path / kind
        make_tokens([text], folder, kind, nbpe=30, nlsyms_txt=symbols)
        split = tokenizer(kind, ["<noise>"], folder / "bpe.model")
        assert set(split(transcript)) <= set(read_tokens(folder / "tokens.txt")), kind
        assert "".join(split(transcript)).replace("<space>", " ").replace(
            "\u2581", " "
        ).split() in (
            transcript.split(),
            [transcript.replace(" ", "")],
        )
    assert tokenizer("char", ["<noise>"])("A <noise>") == ["A", "<space>", "<noise>"]
    with pytest.raises(UserError, match="none.model: cannot be read as a sentencepiece model"):
        tokenizer("bpe", (), tmp_path / "none.model")


@pytest.mark.parametrize("content", ["<blank>\n<unk>\na\n", "<blank>\na\n<sos/eos>\n"])
def test_a_list_that_is_none(tmp_path, content):
    (tmp_path / "tokens.txt").write_text(content)
    with pytest.raises(UserError, match="tokens.txt: no list of tokens"):
        read_tokens(tmp_path / "tokens.txt")
