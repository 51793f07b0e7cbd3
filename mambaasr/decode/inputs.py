"""Read what a decoding needs: the list of audio, the ids to decode, their languages."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambaasr.data.kaldi_file import parse_path, parse_text, read_good_table
from mambaasr.data.prefix import LANG
from mambaasr.errors import UserError


def read_wavs(triples: Sequence[str], features: bool = False) -> dict[str, str]:
    """Return utterance -> path from ``["WAV_SCP,speech,sound"]``; the path may hold commas.

    Args:
        triples: of the command line; ``kaldi_ark`` names archives.
        features: whether the model reads stored features, which ``FEATS_SCP,speech,kaldi_ark``
            names, instead of audio.

    Raises:
        UserError: there are several triples, one is of another kind, or the file is bad or empty.
    """
    if len(triples) != 1:
        raise UserError("--data_path_and_name_and_type: one source of audio is needed, not more")
    path, *kind = triples[0].rsplit(",", 2)
    expected = ["WAV_SCP,speech,sound", "WAV_SCP,speech,kaldi_ark"]
    if features:
        expected = ["FEATS_SCP,speech,kaldi_ark"]
    if kind not in [each.split(",")[1:] for each in expected]:
        why = " (the model was trained on stored features)" if features else ""
        raise UserError(f"--data_path_and_name_and_type {triples[0]}: expected {expected[0]}{why}")
    wavs = read_good_table(path, parse_path)
    if not wavs:
        raise UserError(f"{path}: no audio is listed; write 'id path' lines")
    return wavs


def read_keys(path: str | Path) -> list[str]:
    """Return the ids in the first column of a file, in its order."""
    return list(read_good_table(path, parse_text))


def read_languages(
    path: str | Path | None,
    keys: Sequence[str],
    trained: dict[str, Any],
    config: str | Path,
    prompt: str = "",
) -> dict[str, str] | None:
    """Return utterance -> language for a model that is conditioned on it; else None.

    Args:
        path: utt2lang, or None.
        keys: the utterances to decode.
        trained: the model's config.
        config: its file, for messages.
        prompt: see :func:`read_prompts`, which may need the file too.

    Raises:
        UserError: the model needs languages and one is missing or unknown to it.
    """
    from mambaasr.task import languages

    conf = trained.get("model_conf") or {}
    if trained.get("model") != languages.MODEL or conf.get("conditioning", "none") == "none":
        if path is not None and trained.get("model") != languages.MODEL and LANG not in prompt:
            logging.warning(f"{path}: not used, for the model is not given the language")
        return None
    if path is None:
        raise UserError(
            f"{config}: the model was trained with the {conf['conditioning']} of each utterance: "
            "give --utt2lang FILE"
        )
    table = languages.read(path)
    languages.check(table, keys, path, conf.get("languages") or ())
    return dict(table)


def read_prompts(
    prompt: str, path: str | Path | None, keys: Sequence[str]
) -> dict[str, str] | None:
    """Return utterance -> the words that its text begins with, or None without any.

    Args:
        prompt: words, in which ``{lang}`` stands for the utterance's language.
        path: utt2lang, or None.
        keys: the utterances to decode.

    Raises:
        UserError: a language is needed and not known.
    """
    from mambaasr.task import languages

    if not prompt:
        return None
    if LANG not in prompt:
        return dict.fromkeys(keys, prompt)
    if path is None:
        raise UserError(f"--prompt '{prompt}': give --utt2lang FILE with each utterance's language")
    table = languages.read(path)
    languages.check(table, keys, path)
    return {key: prompt.replace(LANG, table[key]) for key in keys}
