"""Task tokens before the transcripts, and sentencepiece models that know them and any script."""

import json

import pytest

from mambaasr.data.filter import filter_folder
from mambaasr.data.folder import DataFolder
from mambaasr.data.prefix import is_of_prefix
from mambaasr.data.tokens import make_tokens
from mambaasr.errors import UserError

PREFIX = "<|{lang}|> <|transcribe|>"
SYMBOLS = ["<|de|>", "<|en|>", "<|transcribe|>", "<noise>"]


@pytest.fixture
def languages(sines):
    path = sines(n=4)
    (path / "utt2lang").write_text("".join(f"utt{i} {'de' if i % 2 else 'en'}\n" for i in range(4)))
    return path


def test_each_utterance_gets_its_language(languages, tmp_path):
    filter_folder(languages, tmp_path / "out", text_prefix=PREFIX, symbols=SYMBOLS)
    text = DataFolder.read(tmp_path / "out").text
    assert text["utt0"] == "<|en|> <|transcribe|> WORD 0"
    assert text["utt1"] == "<|de|> <|transcribe|> WORD 1"


@pytest.mark.parametrize(
    "prefix, symbols, message",
    [
        (PREFIX, SYMBOLS[:2], "utt0 gets <|transcribe|>, which is not among the symbols of --nls"),
        ("<|{language}|>", SYMBOLS, "{lang} is all that may stand in braces"),
    ],
)
def test_bad_prefixes(languages, tmp_path, prefix, symbols, message):
    with pytest.raises(UserError, match=message):
        filter_folder(languages, tmp_path / "out", text_prefix=prefix, symbols=symbols)


def test_what_is_of_a_prefix():
    assert [is_of_prefix(symbol, PREFIX) for symbol in SYMBOLS] == [True, True, True, False]
    assert not is_of_prefix("<|en|>", "") and not is_of_prefix("<||>", PREFIX)


TEXTS = [
    "<|en|> <|transcribe|> the straight street <noise> and the train",
    "<|de|> <|transcribe|> die straße und der zug",
    "<|en|> <|transcribe|> the other train and the other street",
]
FOREIGN = "日本語 и русский עברית 🙂 naïve"


def tokenizer(tmp_path, *arguments, **options):
    """Make tokens of TEXTS; return the list and ESPnet's tokenizer and converter."""
    from espnet2.text.sentencepiece_tokenizer import SentencepiecesTokenizer
    from espnet2.text.token_id_converter import TokenIDConverter

    (tmp_path / "text").write_text("".join(f"u{i} {text}\n" for i, text in enumerate(TEXTS)))
    (tmp_path / "symbols").write_text("".join(f"{symbol}\n" for symbol in SYMBOLS))
    out = tmp_path / "out"
    options = {"nlsyms_txt": tmp_path / "symbols"} | options
    make_tokens([tmp_path / "text"], out, "bpe", *arguments, **options)
    converter = TokenIDConverter(out / "tokens.txt")
    return converter.token_list, SentencepiecesTokenizer(out / "bpe.model"), converter


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_a_task_token_costs_one_token(tmp_path, mode):
    tokens, pieces, _ = tokenizer(tmp_path, 27, mode, text_prefix=PREFIX)
    assert {"▁<|en|>", "▁<|de|>", "▁<|transcribe|>", "<noise>"} <= set(tokens)
    for text in TEXTS:
        found = pieces.text2tokens(text)
        assert found[:2] == [f"▁{word}" for word in text.split()[:2]]
        assert set(found) <= set(tokens)
        assert pieces.tokens2text(found) == text
    without = pieces.text2tokens("the train")
    assert pieces.text2tokens("<|en|> <|transcribe|> the train")[2:] == without


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
@pytest.mark.parametrize("coverage", [1.0, 0.98])
def test_with_bytes_nothing_is_unknown(tmp_path, mode, coverage):
    tokens, pieces, converter = tokenizer(
        tmp_path, 281, mode, character_coverage=coverage, byte_fallback=True
    )
    assert len(tokens) == 281
    assert {f"<0x{byte:02X}>" for byte in range(256)} <= set(tokens)
    for text in (*TEXTS, FOREIGN):
        found = pieces.text2tokens(text)
        ids = converter.tokens2ids(found)
        assert converter.unk_id not in ids
        assert pieces.tokens2text(converter.ids2tokens(ids)) == text
    assert any(piece.startswith("<0x") for piece in pieces.text2tokens(FOREIGN))


def test_without_bytes_other_scripts_are_unknown(tmp_path):
    _, pieces, converter = tokenizer(tmp_path, 27)
    assert converter.unk_id in converter.tokens2ids(pieces.text2tokens(FOREIGN))


def test_too_few_units_for_bytes(tmp_path):
    with pytest.raises(UserError, match=r"the characters and 256 bytes alone need \d+; give"):
        tokenizer(tmp_path, 200, byte_fallback=True)


@pytest.mark.parametrize("listed", [True, False])
def test_further_symbols(tmp_path, listed):
    value = "<laugh>, straight"
    if not listed:
        value = tmp_path / "more"
        value.write_text("<laugh>\nstraight\n")
    tokens, pieces, _ = tokenizer(tmp_path, 27, bpe_nlsyms=value)
    assert {"<laugh>", "straight", "<noise>"} <= set(tokens)
    assert pieces.text2tokens("a straight <laugh>")[-4:] == ["▁", "straight", "▁", "<laugh>"]


@pytest.mark.parametrize("mode", ["unigram", "bpe"])
def test_a_part_of_the_transcripts(tmp_path, mode):
    words = "one two three four five six seven eight nine ten".split()
    rows = [" ".join(words[(i * j + i // 7) % 10] for j in range(1, 5)) for i in range(400)]
    (tmp_path / "text").write_text("".join(f"u{i} {row}\n" for i, row in enumerate(rows)))
    models = {}
    for name, size in (("all", 0), ("more", 10**8), ("few", 120), ("again", 120)):
        make_tokens([tmp_path / "text"], tmp_path / name, "bpe", 26, mode, input_sentence_size=size)
        models[name] = (tmp_path / name / "bpe.model").read_bytes()
    assert models["few"] == models["again"] != models["all"]
    whole, more = ((tmp_path / name / "tokens.txt").read_text() for name in ("all", "more"))
    assert whole == more


def test_scoring_leaves_task_tokens_out(tmp_path, capsys):
    from mambaasr.bin.score import main

    tokenizer(tmp_path, 27, text_prefix=PREFIX)
    (tmp_path / "ref").write_text("a the train\nb the street\n")
    (tmp_path / "hyp").write_text("a <|en|> <|transcribe|> the train\nb <|de|> the train\n")
    (tmp_path / "utt2spk").write_text("a s\nb s\n")
    arguments = ["--ref", "ref", "--hyp", "hyp", "--utt2spk", "utt2spk", "--nlsyms_txt", "symbols"]
    arguments = [str(tmp_path / a) if not a.startswith("--") else a for a in arguments]
    model = str(tmp_path / "out/bpe.model")
    assert main([*arguments, "--token_type", "bpe", "--bpe_model", model,
                 "--output_dir", str(tmp_path / "score")]) == 0  # fmt: skip
    score = json.loads((tmp_path / "score/score.json").read_text())
    assert "25.0" in capsys.readouterr().out
    assert "transcribe" not in json.dumps(score)
