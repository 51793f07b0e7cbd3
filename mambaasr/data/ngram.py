"""Estimate an n-gram model on the tokens of texts."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from mambaasr.data.texts import parse_line, read_lines
from mambaasr.data.tokens import UNK, read_symbols, read_tokens, tokenizer
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# Stands in kenlm's text for what has no token; kenlm's <unk> is what its text does not have.
_OTHER = "<other>"
SPACE = "<space>"
# The part of the tokens that may be <unk>: with more it is a model of nothing.
MOST_UNKNOWN = 0.5


class _Texts:
    """The tokens of texts as numbers.

    Attributes:
        names: the token list.
        texts, tokens, unknown: how many there were, after they were read.

    Raises:
        UserError: the list is of another type of token; or, while they are read, a line is bad,
            there is no text, or most tokens are not in the list.
    """

    def __init__(
        self,
        path: str | Path,
        token_list: str | Path,
        token_type: str,
        symbols: Iterable[str],
        bpemodel: str | Path | None,
    ) -> None:
        self.path, self.token_list, self.token_type = path, token_list, token_type
        self.names = read_tokens(token_list)
        self.texts = self.tokens = self.unknown = 0
        if token_type == "bpe" and not any("\u2581" in name for name in self.names):
            raise UserError(f"{token_list}: no token begins with '\u2581': it is no list of bpe")
        self._no_space = token_type == "char" and SPACE not in self.names
        self._split = tokenizer(token_type, symbols, bpemodel)
        # The blank and <sos/eos> are no text.
        self._numbers = {token: i for i, token in enumerate(self.names[1:-1], 1)}

    def __iter__(self) -> Iterator[list[int]]:
        unk = self._numbers[UNK]
        for number, line in enumerate(read_lines(self.path), 1):
            key, text, reason = parse_line(line)
            if reason and key is None:
                raise UserError(f"{self.path}:{number}: {reason}")
            if text is None:
                continue
            spelled = self._split(text)
            if self._no_space and SPACE in spelled:
                raise UserError(
                    f"{self.path}:{number}: {self.token_list} has no {SPACE}, so it is no list of "
                    "--token_type char, or of texts without spaces"
                )
            tokens = [self._numbers.get(token, unk) for token in spelled]
            self.texts += 1
            self.tokens += len(tokens)
            self.unknown += tokens.count(unk)
            yield tokens
        if not self.texts:
            raise UserError(f"{self.path}: no text to estimate an n-gram model on")
        if self.unknown > MOST_UNKNOWN * self.tokens:
            raise UserError(
                f"{self.path}: {self.unknown} of {self.tokens} tokens of --token_type "
                f"{self.token_type} are not in {self.token_list}: is it the list's type, and are "
                "the texts of its language and case?"
            )


def train_ngram(
    text: str | Path,
    token_list: str | Path,
    out: str | Path,
    token_type: str,
    order: int = 3,
    bpemodel: str | Path | None = None,
    nlsyms_txt: str | Path | None = None,
    lmplz: str | None = None,
) -> str:
    """Write an ARPA file of modified Kneser-Ney smoothing.

    kenlm's ``lmplz`` gives the same probabilities, for texts of any size: it sorts on the disk. It
    differs in what has no token: that is ``<unk>`` with n-grams of its own, but for ``lmplz``,
    which allows none in a text, a word that no list has.

    Args:
        text: file of ``id text`` lines; those without a text are left out.
        token_list: tokens.txt of the recogniser.
        out: the file to write.
        token_type: char, word or bpe.
        order: of the longest n-grams.
        bpemodel: sentencepiece's model, for bpe.
        nlsyms_txt: file of non-linguistic symbols, or "none".
        lmplz: the program's path; "" for this package's own estimate. None: the program where it
            is installed.

    Returns:
        A one-line summary.

    Raises:
        UserError: a file is bad, there is no text, most of its tokens are not in the list, the
            order is impossible, or ``lmplz`` fails.
    """
    from mambaasr.lm.arpa import write_arpa
    from mambaasr.lm.kneser_ney import estimate

    texts = _Texts(text, token_list, token_type, read_symbols(nlsyms_txt), bpemodel)
    if lmplz is None:
        lmplz = shutil.which("lmplz")
    if lmplz:
        _run(lmplz, texts, order, Path(out))
    else:
        write_arpa(out, estimate(texts, order, len(texts.names)), texts.names)
    return (
        f"{out}: order {order}, of {texts.tokens} tokens ({texts.unknown} of them {UNK}) in "
        f"{texts.texts} texts, by {lmplz or 'mambaasr'}"
    )


def _run(lmplz: str, texts: _Texts, order: int, out: Path) -> None:
    """Give a text to kenlm's program."""
    words = [_OTHER if name == UNK else name for name in texts.names]
    command = [lmplz, "--order", str(order), "--discount_fallback", "--memory", "20%"]
    # Of its vocabulary <unk> is what is left of the list, as in our own estimate.
    command += ["--vocab_pad", str(len(words) - 1), "--temp_prefix", f"{out.parent}/"]
    with atomic_write(out, "wb") as stream:
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream) as process:
                assert process.stdin is not None
                try:
                    for text in texts:
                        line = " ".join([words[token] for token in text])
                        process.stdin.write(f"{line}\n".encode())
                except UserError:
                    process.kill()  # it would estimate what it has
                    raise
        except BrokenPipeError:
            pass  # its status says more
        except OSError as error:
            raise UserError(f"{lmplz}: cannot be run: {error.strerror or error}") from error
        if process.returncode:
            raise UserError(
                f"{lmplz} failed with status {process.returncode}; what it says stands above"
            )
