"""Score files of hypotheses against files of references."""

from pathlib import Path

from mambaasr.data.kaldi_file import parse_hypothesis, parse_text, read_good_table
from mambaasr.data.tokens import bpe_tokens, read_symbols
from mambaasr.errors import UserError
from mambaasr.score import bootstrap, error_rate, languages, score_files
from mambaasr.score.normalizers import find_normalizer

type File = str | Path


def score(
    ref: File,
    hyp: File,
    output_dir: File | None = None,
    *,
    utt2spk: File | None = None,
    utt2lang: File | None = None,
    hyp_lang: File | None = None,
    bpe_model: File | None = None,
    nlsyms_txt: File | None = None,
    compare: File | None = None,
    bootstrap_samples: int = 10000,
    seed: int = 0,
    normalizer: str = "none",
) -> str:
    """Return the tables of WER, CER and, with a sentencepiece model, TER; write them and more.

    Where they are written, the rates by speaker are in the files alone.

    Args:
        ref, hyp: files of ``utterance text`` lines. A hypothesis that is missing or empty counts
            as deleted.
        output_dir: where score.json, score.txt and errors_*.txt go, and a picture of what
            languages a model found; None writes nothing.
        utt2spk, utt2lang: for the rates by speaker and by language.
        hyp_lang: the languages that a model found; needs ``utt2lang``.
        bpe_model: for the TER.
        nlsyms_txt: words that are no speech, one a line: not scored.
        compare: another system's hypotheses: a paired bootstrap of the WER.
        bootstrap_samples, seed: of the bootstrap.
        normalizer: of :data:`mambaasr.score.normalizers.NORMALIZERS`; unless "none", there is a
            second WER, of references and hypotheses that it was applied to.

    Raises:
        UserError: a file cannot be read, its ids are not those of the references, or the
            normalizer's package is missing.
    """
    skip = frozenset(read_symbols(nlsyms_txt))
    references, hypotheses = _read(ref, skip), _read(hyp, skip, hypotheses=True)
    error_rate.check_ids(references, hypotheses, hyp)
    speakers = _read(utt2spk) if utt2spk else None
    of_language = _read(utt2lang) if utt2lang else None
    splits = {"wer": error_rate.words, "cer": error_rate.characters}
    if bpe_model:
        splits["ter"] = bpe_tokens(bpe_model)
    scores = {
        name: error_rate.align(references, hypotheses, split) for name, split in splits.items()
    }
    missing = sorted(set(references) - set(hypotheses))
    details: dict[str, object] = {"ref": str(ref), "hyp": str(hyp), "missing": missing}
    if normalizer != "none":
        normalize, details["normalizer"] = find_normalizer(normalizer)
        scores["normalized_wer"] = error_rate.align(
            {utt: normalize(text) for utt, text in references.items()},
            {utt: normalize(text) for utt, text in hypotheses.items()},
            error_rate.words,
        )
    if hyp_lang:
        found = _read(hyp_lang, hypotheses=True)
        error_rate.check_ids(references, found, hyp_lang)
        error_rate.check_groups(references, of_language, "language")
        true = {utt: of_language[utt] for utt in references}
        details["lid"] = {"hyp": str(hyp_lang), **languages.identification(true, found)}
    if compare:
        other = _read(compare, skip, hypotheses=True)
        error_rate.check_ids(references, other, compare)
        others = error_rate.align(references, other, error_rate.words)
        result = bootstrap.paired_bootstrap(scores["wer"], others, bootstrap_samples, seed)
        significance = {**result._asdict(), "significant": result.significant}
        details["compare"] = {"other": str(compare), **significance}
    if output_dir is None:
        return score_files.score_text(scores, speakers, details, of_language)
    score_files.write_scores(output_dir, scores, speakers, details, of_language)
    totals = score_files.score_text(scores, None, details, of_language, confusions=False)
    more = "by speaker and every error" if speakers else "every error"
    return f"{totals}{more}: {output_dir}/score.txt, errors_*.txt\n"


def _read(
    path: File, skip: frozenset[str] = frozenset(), hypotheses: bool = False
) -> dict[str, str]:
    """Return a Kaldi file as a dict, the words in ``skip`` left out; a bad line is an error.

    A file of hypotheses may be empty, and any character may be in them.
    """
    table = read_good_table(path, parse_hypothesis if hypotheses else parse_text)
    if not table and not hypotheses:
        raise UserError(f"{path}: the file is empty; write it, one 'id value' a line")
    if not skip:
        return dict(table)
    return {utt: " ".join(w for w in text.split() if w not in skip) for utt, text in table.items()}
