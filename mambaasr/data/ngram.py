"""Estimate an n-gram model on the tokens of texts."""

import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mambaasr.data.texts import parse_line, read_lines
from mambaasr.data.tokens import UNK, read_symbols, read_tokens, tokenizer
from mambaasr.errors import UserError
from mambaasr.files import atomic_write

# Stands in kenlm's text for what has no token; kenlm's <unk> is what its text does not have.
_OTHER = "<other>"


class _Texts:
    """The tokens of texts as numbers.

    Attributes:
        texts, tokens, unknown: how many there were, after they were read.
    """

    def __init__(
        self,
        path: str | Path,
        token_list: Sequence[str],
        token_type: str,
        symbols: Iterable[str],
        bpemodel: str | Path | None,
    ) -> None:
        self.path = path
        self.texts = self.tokens = self.unknown = 0
        self._split = tokenizer(token_type, symbols, bpemodel)
        # The blank and <sos/eos> are no text.
        self._numbers = {token: i for i, token in enumerate(token_list[1:-1], 1)}

    def __iter__(self) -> Iterator[list[int]]:
        unk = self._numbers[UNK]
        for number, line in enumerate(read_lines(self.path), 1):
            key, text, reason = parse_line(line)
            if reason and key is None:
                raise UserError(f"{self.path}:{number}: {reason}")
            if text is None:
                continue
            tokens = [self._numbers.get(token, unk) for token in self._split(text)]
            self.texts += 1
            self.tokens += len(tokens)
            self.unknown += tokens.count(unk)
            yield tokens
        if not self.texts:
            raise UserError(f"{self.path}: no text to estimate an n-gram model on")


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
        UserError: a file is bad, there is no text, the order is impossible, or ``lmplz`` fails.
    """
    from mambaasr.lm.arpa import write_arpa
    from mambaasr.lm.kneser_ney import estimate

    names = read_tokens(token_list)
    texts = _Texts(text, names, token_type, read_symbols(nlsyms_txt), bpemodel)
    if lmplz is None:
        lmplz = shutil.which("lmplz")
    if lmplz:
        _run(lmplz, texts, names, order, Path(out))
    else:
        write_arpa(out, estimate(texts, order, len(names)), names)
    return (
        f"{out}: order {order}, of {texts.tokens} tokens ({texts.unknown} of them {UNK}) in "
        f"{texts.texts} texts, by {lmplz or 'mambaasr'}"
    )


def _run(
    lmplz: str, texts: Iterable[Sequence[int]], names: Sequence[str], order: int, out: Path
) -> None:
    """Give a text to kenlm's program."""
    words = [_OTHER if name == UNK else name for name in names]
    command = [lmplz, "--order", str(order), "--discount_fallback", "--memory", "20%"]
    # Of its vocabulary <unk> is what is left of the list, as in our own estimate.
    command += ["--vocab_pad", str(len(names) - 1), "--temp_prefix", f"{out.parent}/"]
    with atomic_write(out, "wb") as stream:
        try:
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stream) as process:
                assert process.stdin is not None
                for text in texts:
                    line = " ".join([words[token] for token in text])
                    process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            pass  # its status says more
        except OSError as error:
            raise UserError(f"{lmplz}: cannot be run: {error.strerror or error}") from error
        if process.returncode:
            raise UserError(
                f"{lmplz} failed with status {process.returncode}; what it says stands above"
            )
