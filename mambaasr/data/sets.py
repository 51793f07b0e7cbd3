"""Compare a recipe's sets: what in them would spoil a result, and nothing else would say."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import median

from mambaasr.data.kaldi_file import parse_name, parse_text, read_good_table
from mambaasr.data.measures import read_measures
from mambaasr.data.non_speech import NON_SPEECH
from mambaasr.data.tokens import SPACE, read_bpe_symbols, read_symbols, split_characters
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# So far from the training set's median [dB] this share of a set is more than a few odd speakers.
_LEVEL, _FEW = 20.0, 0.05
# Share of capitals among the letters that have two forms: one set is cased otherwise.
_CASE = 0.5

# Text -> what of it has no token, and how many pieces it has.
Missing = Callable[[str], tuple[list[str], int]]


def check_sets(
    train: str | Path,
    others: Sequence[str | Path],
    token_list: str | Path,
    token_type: str,
    bpemodel: str | Path | None = None,
    nlsyms_txt: str | Path | None = None,
    bpe_nlsyms: str | None = None,
    output: str | Path | None = None,
) -> list[str]:
    """Log a warning for each fault found, and return the warnings.

    Args:
        train: formatted folder of the training set.
        others: those of validation and test sets.
        token_list: tokens, one a line.
        token_type: char, word or bpe.
        bpemodel: sentencepiece's model, for bpe.
        nlsyms_txt, bpe_nlsyms: see :func:`mambaasr.data.tokens.make_tokens`.
        output: file for the warnings.

    Raises:
        UserError: a file is bad or missing.
    """
    symbols = [*read_symbols(nlsyms_txt), *read_bpe_symbols(bpe_nlsyms)]
    missing, again = _tokenizer(token_list, token_type, bpemodel, symbols)
    found: list[str] = []
    texts = {path: read_good_table(Path(path, "text"), parse_text) for path in (train, *others)}
    for path in (train, *others):
        if path != train:
            found += _same(train, path, texts[train], texts[path])
            found += _same_speakers(train, path)
            found += _case(train, path, texts[train], texts[path])
            found += _levels(train, path)
        found += _without_token(path, texts[path], missing, token_type)
        found += _not_again(path, texts[path], again)
    for text in found:
        logging.warning(text)
    if output is not None:
        with atomic_write(output) as stream:
            stream.writelines(f"{text}\n" for text in found)
    return found


def _tokenizer(
    token_list: str | Path,
    token_type: str,
    bpemodel: str | Path | None,
    symbols: Collection[str],
) -> tuple[Missing, Callable[[str], str] | None]:
    """Return what finds the pieces without a token, and what encodes and decodes, for bpe."""
    if token_type != "bpe":
        try:
            lines = Path(token_list).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{token_list}: cannot be read: {error}") from error
        known = set(lines)

        def unlisted(text: str) -> tuple[list[str], int]:
            pieces = split_characters(text, symbols) if token_type == "char" else text.split()
            return [piece for piece in pieces if piece not in known], len(pieces)

        return unlisted, None
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=str(bpemodel))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{bpemodel}: cannot be read as a sentencepiece model: {error}") from error
    unknown: dict[str, bool] = {SPACE: False} | dict.fromkeys(symbols, False)

    def uncovered(text: str) -> tuple[list[str], int]:
        if not any(unknown.get(piece, True) for piece in set(text) - {" "}):
            return [], len(text)
        pieces = split_characters(text, symbols)
        for piece in set(pieces) - unknown.keys():
            unknown[piece] = model.unk_id() in model.encode(piece)
        return [piece for piece in pieces if unknown[piece]], len(pieces)

    # Copies at other speeds have the same texts.
    return cache(uncovered), cache(lambda text: model.decode(model.encode(text)))


def _some(counts: Counter[str]) -> str:
    shown = ", ".join(f"{piece!r} {count}" for piece, count in counts.most_common(10))
    return shown + (", ..." if len(counts) > 10 else "")


def _without_token(
    path: str | Path, texts: dict[str, str], missing: Missing, token_type: str
) -> Iterator[str]:
    counts, total, where = Counter[str](), 0, list[str]()
    for utt, text in texts.items():
        lacking, pieces = missing(text)
        total += pieces
        counts.update(lacking)
        where += [utt] if lacking else []
    if counts:
        kind = "words" if token_type == "word" else "characters"
        yield (
            f"{path}/text: {counts.total()} of {total} {kind} have no token ({_some(counts)}), in "
            f"{len(where)} of {len(texts)} texts (first {where[0]}): no hypothesis can have them"
        )


def _not_again(
    path: str | Path, texts: dict[str, str], again: Callable[[str], str] | None
) -> Iterator[str]:
    if again is None:
        return
    # What has no token was counted, and comes back as sentencepiece's mark of the unknown.
    changed = {
        utt: back
        for utt, text in texts.items()
        if (back := again(text)).split() != text.split() and "\u2047" not in back
    }
    if changed:
        utt = next(iter(changed))
        yield (
            f"{path}/text: {len(changed)} of {len(texts)} texts do not come back from the tokens: "
            f"{utt} {texts[utt]!r} as {changed[utt]!r}: a perfect model would have errors there; "
            "sentencepiece normalises them (a model made by this version does not: remove its "
            "folder, and train anew), or write the texts that way"
        )


def _same(
    train: str | Path, path: str | Path, texts: dict[str, str], others: dict[str, str]
) -> Iterator[str]:
    shared = [utt for utt in others if utt in texts]
    if shared:
        yield (
            f"{path}: {len(shared)} of {len(others)} ids are also in {train} (first {shared[0]}): "
            "is it training data?"
        )
    known = {digest: utt for utt, (_, digest) in read_measures(train).items()}
    heard = {
        utt: known[digest] for utt, (_, digest) in read_measures(path).items() if digest in known
    }
    if heard:
        utt = next(iter(heard))
        yield (
            f"{path}: the audio of {len(heard)} of {len(others)} utterances is also in {train} "
            f"(first {utt}, there {heard[utt]}): it is training data"
        )


def _same_speakers(train: str | Path, path: str | Path) -> Iterator[str]:
    ours, theirs = (
        read_good_table(Path(folder, "utt2spk"), parse_name).values() for folder in (train, path)
    )
    spoken = {name for name in theirs if not name.startswith(NON_SPEECH)}
    if shared := sorted(set(ours) & spoken):
        yield (
            f"{path}: {len(shared)} of {len(set(theirs))} speakers are also in {train} (first "
            f"{shared[0]}): the error rate is that of known voices"
        )


def _capitals(texts: dict[str, str]) -> float | None:
    """Return the share of capitals among the letters that have two forms, None without any."""
    letters = Counter("".join(texts.values()))
    upper = sum(count for c, count in letters.items() if c != c.lower())
    lower = sum(count for c, count in letters.items() if c != c.upper())
    return upper / (upper + lower) if upper + lower else None


def _case(
    train: str | Path, path: str | Path, texts: dict[str, str], others: dict[str, str]
) -> Iterator[str]:
    ours, theirs = _capitals(texts), _capitals(others)
    if ours is not None and theirs is not None and abs(ours - theirs) > _CASE:
        utt = next(utt for utt, text in others.items() if text)
        yield (
            f"{path}/text: {theirs:.0%} of the letters are capitals, in {train} {ours:.0%} (first "
            f"{utt} {others[utt]!r}): case counts in scoring; write both alike"
        )


def _levels(train: str | Path, path: str | Path) -> Iterator[str]:
    ours, theirs = ([level for level, _ in read_measures(p).values()] for p in (train, path))
    if not ours or not theirs:
        return
    usual = median(ours)
    off = sum(abs(level - usual) > _LEVEL for level in theirs)
    if off > _FEW * len(theirs):
        yield (
            f"{path}: {off} of {len(theirs)} utterances are more than {_LEVEL:g} dB louder or "
            f"softer than those of {train} are ({median(theirs):.0f} dB there, {usual:.0f} dB here)"
        )
