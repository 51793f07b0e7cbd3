"""Token lists: characters, words, or sentencepiece units, as ESPnet's tokenizers make them.

Samba-ASR (arXiv 2501.02832) has byte-level BPE and task tokens. ESPnet's ``bpe`` is sentencepiece,
which has no byte-level BPE; ``byte_fallback`` comes near: a character that has no unit is spelled
in the bytes of its UTF-8 form, so nothing is unknown, in any script. It differs in that units
never join bytes of different characters (a character without a unit costs two to four tokens), and
in that 256 units are set aside. Task tokens are :mod:`mambaasr.data.prefix`'s.

By itself sentencepiece normalises what goes in (NFKC): a perfect model would write 1⁄2 for ½, and
be wrong. New models take texts as they are; where one was made otherwise, it is made the same way
again, so that what was trained with it stays right.
"""

import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mambaasr.data.kaldi_file import parse_text, read_good_table
from mambaasr.data.prefix import is_of_prefix
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

BLANK, UNK, SPACE, SOS_EOS = "<blank>", "<unk>", "<space>", "<sos/eos>"
# sentencepiece's own units, which ESPnet's list replaces by its own.
_CONTROL_UNITS = ("<unk>", "<s>", "</s>")
# sentencepiece's own rule, of the models before version 0.2.0.
_NFKC = "nmt_nfkc"
# A space, as sentencepiece writes it.
_SPACE = "\u2581"


def read_transcripts(paths: Sequence[str | Path]) -> list[str]:
    """Return the transcripts of text files, those without any content left out.

    Raises:
        UserError: a file cannot be read, has a bad line, or there is no transcript in all.
    """
    tables = [read_good_table(path, parse_text) for path in paths]
    transcripts = [text for table in tables for text in table.values() if text]
    if not transcripts:
        raise UserError(f"{', '.join(map(str, paths))}: no transcripts, so no tokens; fill it")
    return transcripts


def read_symbols(path: str | Path | None) -> list[str]:
    """Return the non-linguistic symbols of a file, one a line, such as ``<noise>``.

    No file (None, nothing, or ESPnet's word ``none``) is no symbols.

    Raises:
        UserError: the file cannot be read or holds one with a space in it.
    """
    if path in (None, "", "none"):
        return []
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of symbols: {error}") from error
    symbols = {}
    for number, line in enumerate(lines, 1):
        symbol = line.strip()
        if len(symbol.split()) > 1:
            raise UserError(f"{path}:{number}: {symbol!r} holds a space; write one symbol a line")
        if symbol:
            symbols[symbol] = None
    return list(symbols)


def read_bpe_symbols(value: str | Path | None) -> list[str]:
    """Return the symbols of ESPnet's ``bpe_nlsyms``: a file, one a line, or a list with commas.

    Raises:
        UserError: see :func:`read_symbols`.
    """
    if value in (None, "", "none") or Path(value).is_file():
        return read_symbols(value)
    symbols = [symbol.strip() for symbol in str(value).split(",")]
    for symbol in symbols:
        if len(symbol.split()) != 1:
            raise UserError(
                f"--bpe_nlsyms {value}: {symbol!r} is no symbol, and there is no such file"
            )
    return list(dict.fromkeys(symbols))


def split_characters(text: str, symbols: Iterable[str] = ()) -> list[str]:
    """Return the characters of a text; a space is ``<space>``, symbols stay in one piece."""
    # Of two symbols that begin alike the longer is meant.
    alternatives = [re.escape(s) for s in sorted(symbols, key=len, reverse=True)]
    pieces = re.findall("|".join([*alternatives, "."]), text, flags=re.DOTALL)
    return [SPACE if piece == " " else piece for piece in pieces]


def bpe_tokens(model_file: str | Path) -> Callable[[str], list[str]]:
    """Return a function that splits a text into the tokens of a sentencepiece model.

    Raises:
        UserError: the model cannot be read.
    """
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{model_file}: cannot be read as a sentencepiece model") from error
    return lambda text: model.encode(text, out_type=str)


def tokenizer(
    token_type: str, symbols: Iterable[str] = (), bpemodel: str | Path | None = None
) -> Callable[[str], list[str]]:
    """Return a function that splits a text into tokens, as a training does.

    Args:
        token_type: char, word or bpe.
        symbols: non-linguistic symbols, for characters.
        bpemodel: sentencepiece's model, for bpe.

    Raises:
        UserError: the model cannot be read.
    """
    if token_type == "bpe":
        return bpe_tokens(str(bpemodel))
    symbols = list(symbols)
    return str.split if token_type == "word" else lambda text: split_characters(text, symbols)


def read_tokens(path: str | Path) -> list[str]:
    """Read a token list as :func:`make_tokens` writes it.

    Raises:
        UserError: it cannot be read, or lacks <unk>, or <sos/eos> at its end.
    """
    try:
        tokens = Path(path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if UNK not in tokens or tokens[-1] != SOS_EOS:
        raise UserError(f"{path}: no list of tokens: {UNK} must be in it, and {SOS_EOS} at its end")
    return tokens


def count_tokens(
    transcripts: Iterable[str], token_type: str, symbols: Iterable[str] = ()
) -> list[str]:
    """Return the characters or words of transcripts, the most frequent first.

    Args:
        transcripts: list of str.
        token_type: char or word.
        symbols: non-linguistic symbols.
    """
    split = tokenizer(token_type, symbols)
    counts = Counter(token for text in transcripts for token in split(text))
    for special in (BLANK, UNK, SOS_EOS):
        counts.pop(special, None)
    return sorted(counts, key=lambda token: (-counts[token], token))


def train_sentencepiece(
    transcripts: Sequence[str],
    vocab_size: int,
    mode: str = "unigram",
    symbols: Iterable[str] = (),
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
    input_sentence_size: int = 0,
    text_prefix: str = "",
    normalization: str = "identity",
) -> tuple[bytes, list[str]]:
    """Train a sentencepiece model, deterministically and without its log.

    Args:
        transcripts: list of str.
        vocab_size: number of units, ``<unk>``, ``<s>`` and ``</s>`` included.
        mode: unigram or bpe.
        symbols: non-linguistic symbols, each a unit.
        character_coverage: share of the characters that are not unknown, or not bytes.
        byte_fallback: spell characters that have no unit in 256 units for bytes.
        input_sentence_size: train on as many transcripts, drawn at random; 0 for all.
        text_prefix: symbols of it (:mod:`mambaasr.data.prefix`) are units with the space before
            them, so that each costs one token; others leave the space to a unit of its own.
        normalization: sentencepiece's rule for what goes in.

    Returns:
        The model (bytes) and its units without the three above.

    Raises:
        UserError: the transcripts do not give that many units, or need more.
    """
    import sentencepiece

    if input_sentence_size < 0 or 0 < input_sentence_size <= 100:
        raise UserError(
            f"--input_sentence_size (in asr.sh --bpe_input_sentence_size) {input_sentence_size}: "
            "0 for all transcripts, or more than 100"
        )
    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(transcripts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=mode,
            user_defined_symbols=[
                f"{_SPACE}{symbol}" if is_of_prefix(symbol, text_prefix) else symbol
                for symbol in symbols
            ],
            character_coverage=character_coverage,
            byte_fallback=byte_fallback,
            input_sentence_size=input_sentence_size,
            normalization_rule_name=normalization,
            # sentencepiece leaves out longer sentences (4192 bytes) without a word.
            max_sentence_length=max(4192, *(len(text.encode()) + 1 for text in transcripts)),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size, byte_fallback)) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    units = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    return model.getvalue(), [unit for unit in units if unit not in _CONTROL_UNITS]


def _explain(message: str, vocab_size: int, byte_fallback: bool = False) -> str:
    """Return sentencepiece's error in words that name the option to change."""
    too_large = re.search(r"set it to a value <= (\d+)", message)
    if too_large:
        return (
            f"--nbpe {vocab_size} is too large for these transcripts: "
            f"sentencepiece finds {too_large[1]} units at most; give --nbpe {too_large[1]} or less"
        )
    too_small = re.search(r"smaller than required_chars\. \d+ vs (\d+)", message)
    if too_small:
        return (
            f"--nbpe {vocab_size} is too small: the characters{' and 256 bytes' * byte_fallback} "
            f"alone need {too_small[1]}; give --nbpe {too_small[1]} or more, or a "
            "--character_coverage (in asr.sh --bpe_char_cover) below 1"
        )
    return f"sentencepiece refuses --nbpe {vocab_size}: {message}"


def _normalization(path: Path) -> str:
    """Return the normalisation of the model that is there, or that of new ones."""
    try:
        # The rule's name, as protocol buffers write the first field of a message.
        return _NFKC if b"\x0a\x08" + _NFKC.encode() in path.read_bytes() else "identity"
    except OSError:
        return "identity"


def make_tokens(
    texts: Sequence[str | Path],
    out_dir: str | Path,
    token_type: str,
    nbpe: int = 30,
    bpemode: str = "unigram",
    nlsyms_txt: str | Path | None = None,
    character_coverage: float = 1.0,
    byte_fallback: bool = False,
    input_sentence_size: int = 0,
    bpe_nlsyms: str | None = None,
    text_prefix: str = "",
) -> str:
    """Write ``tokens.txt`` and, for sentencepiece, ``bpe.model`` into a folder.

    The list is ESPnet's: ``<blank>``, ``<unk>``, the units, ``<sos/eos>``. A model that is there
    keeps its normalisation.

    Args:
        texts: files of ``utterance transcript`` lines.
        out_dir: folder to write.
        token_type: char, word or bpe.
        nbpe: number of sentencepiece units; the list has as many lines.
        bpemode: unigram or bpe.
        nlsyms_txt: file of non-linguistic symbols, one a line; None for none.
        character_coverage, byte_fallback, input_sentence_size, text_prefix: see
            :func:`train_sentencepiece`.
        bpe_nlsyms: further symbols that bpe keeps in one piece; see :func:`read_bpe_symbols`.

    Returns:
        A one-line summary.

    Raises:
        UserError: a file is bad, nbpe does not fit the transcripts, or the disk is full.
    """
    transcripts = read_transcripts(texts)
    symbols = read_symbols(nlsyms_txt)
    out_dir = Path(out_dir)
    if token_type == "bpe":
        model, units = train_sentencepiece(
            transcripts,
            nbpe,
            bpemode,
            list(dict.fromkeys([*symbols, *read_bpe_symbols(bpe_nlsyms)])),
            character_coverage,
            byte_fallback,
            input_sentence_size,
            text_prefix,
            _normalization(out_dir / "bpe.model"),
        )
        with atomic_write(out_dir / "bpe.model", "wb") as stream:
            stream.write(model)
    else:
        units = count_tokens(transcripts, token_type, symbols)
    tokens = [BLANK, UNK, *units, SOS_EOS]
    with atomic_write(out_dir / "tokens.txt") as stream:
        stream.write("".join(f"{token}\n" for token in tokens))
    if token_type != "bpe":
        (out_dir / "bpe.model").unlink(missing_ok=True)
    return f"{out_dir}/tokens.txt: {len(tokens)} tokens ({token_type}), {len(transcripts)} texts"
