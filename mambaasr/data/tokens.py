"""Token lists: characters, words, or sentencepiece units, as ESPnet's tokenizers make them."""

import io
import re
from collections import Counter
from pathlib import Path

from mambaasr.data.table import parse_text, read_good_table
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

BLANK, UNK, SPACE, SOS_EOS = "<blank>", "<unk>", "<space>", "<sos/eos>"
# sentencepiece's own units, which ESPnet's list replaces by its own.
_CONTROL_UNITS = ("<unk>", "<s>", "</s>")


def read_transcripts(paths):
    """Return the transcripts of text files, those without any content left out.

    Raises:
        UserError: a file cannot be read, has a bad line, or there is no transcript in all.
    """
    tables = [read_good_table(path, parse_text) for path in paths]
    transcripts = [text for table in tables for text in table.values() if text]
    if not transcripts:
        raise UserError(f"{', '.join(map(str, paths))}: no transcripts, so no tokens; fill it")
    return transcripts


def read_symbols(path):
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


def split_characters(text, symbols=()):
    """Return the characters of a text; a space is ``<space>``, symbols stay in one piece."""
    # Of two symbols that begin alike the longer is meant.
    alternatives = [re.escape(s) for s in sorted(symbols, key=len, reverse=True)]
    pieces = re.findall("|".join([*alternatives, "."]), text, flags=re.DOTALL)
    return [SPACE if piece == " " else piece for piece in pieces]


def count_tokens(transcripts, token_type, symbols=()):
    """Return the characters or words of transcripts, the most frequent first.

    Args:
        transcripts: list of str.
        token_type: char or word.
        symbols: non-linguistic symbols.
    """
    split = (lambda text: split_characters(text, symbols)) if token_type == "char" else str.split
    counts = Counter(token for text in transcripts for token in split(text))
    for special in (BLANK, UNK, SOS_EOS):
        counts.pop(special, None)
    return sorted(counts, key=lambda token: (-counts[token], token))


def train_sentencepiece(
    transcripts, vocab_size, mode="unigram", symbols=(), character_coverage=1.0
):
    """Train a sentencepiece model, the same for the same input, without its chatter.

    Args:
        transcripts: list of str.
        vocab_size: number of units, ``<unk>``, ``<s>`` and ``</s>`` included.
        mode: unigram or bpe.
        symbols: non-linguistic symbols, each a unit.
        character_coverage: share of the characters that are not unknown.

    Returns:
        The model (bytes) and its units without the three above.

    Raises:
        UserError: the transcripts do not give that many units, or need more.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.set_random_generator_seed(0)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(transcripts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type=mode,
            user_defined_symbols=list(symbols),
            character_coverage=character_coverage,
            # sentencepiece leaves out longer sentences (4192 bytes) without a word.
            max_sentence_length=max(4192, *(len(text.encode()) + 1 for text in transcripts)),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(_explain(str(error), vocab_size)) from error
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    units = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    return model.getvalue(), [unit for unit in units if unit not in _CONTROL_UNITS]


def _explain(message, vocab_size):
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
            f"--nbpe {vocab_size} is too small: the characters alone need {too_small[1]}; "
            f"give --nbpe {too_small[1]} or more, or a --character_coverage below 1"
        )
    return f"sentencepiece refuses --nbpe {vocab_size}: {message}"


def make_tokens(
    texts,
    out_dir,
    token_type,
    nbpe=30,
    bpemode="unigram",
    nlsyms_txt=None,
    character_coverage=1.0,
):
    """Write ``tokens.txt`` and, for sentencepiece, ``bpe.model`` into a folder.

    The list is ESPnet's: ``<blank>``, ``<unk>``, the units, ``<sos/eos>``.

    Args:
        texts: files of ``utterance transcript`` lines.
        out_dir: folder to write.
        token_type: char, word or bpe.
        nbpe: number of sentencepiece units; the list has as many lines.
        bpemode: unigram or bpe.
        nlsyms_txt: file of non-linguistic symbols, one a line; None for none.
        character_coverage: see :func:`train_sentencepiece`.

    Returns:
        A one-line summary.

    Raises:
        UserError: a file is bad, nbpe does not fit the transcripts, or the disk is full.
    """
    transcripts = read_transcripts(texts)
    symbols = read_symbols(nlsyms_txt)
    out_dir = Path(out_dir)
    if token_type == "bpe":
        model, units = train_sentencepiece(transcripts, nbpe, bpemode, symbols, character_coverage)
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
