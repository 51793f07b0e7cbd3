"""Decode a set with a trained model, under the names of ESPnet's options."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from mambaasr.bin import run_main
from mambaasr.decode.options import SEARCH, get_parser, parse
from mambaasr.errors import UserError

__all__ = ["get_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse(argv)
    logging.basicConfig(
        level=args.log_level, format="%(asctime)s %(levelname)s: %(message)s", stream=sys.stderr
    )
    for name in ("nj", "beam_size", "nbest", "chunk_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")
    if args.batch_size != 1:
        raise UserError("--batch_size: only 1 is supported; --nj decodes in parallel")
    if args.nbest > args.beam_size:
        raise UserError(f"--nbest {args.nbest} needs a --beam_size of at least {args.nbest}")

    from mambaasr.config import has_decoder, read
    from mambaasr.decode.asr import Model, decode_set

    wavs = _read_wavs(args.data_path_and_name_and_type)
    keys = _read_keys(args.key_file) if args.key_file else list(wavs)
    config = args.asr_train_config or Path(args.asr_model_file).with_name("config.yaml")
    paths = (config, args.asr_model_file, args.lm_train_config, args.lm_file)
    trained = read(config)
    if not has_decoder(trained) and args.ctc_weight != 1.0:
        logging.info(f"the model has no decoder: ctc_weight is 1.0, not {args.ctc_weight}")
        args.ctc_weight = 1.0
    told = _read_languages(args.utt2lang, keys, trained, config)
    model = Model(
        *(str(Path(path).absolute()) if path else None for path in paths),
        options=tuple(sorted((name, _path_or_value(args, name)) for name in SEARCH)),
        ngpu=args.ngpu,
        seed=args.seed,
    )
    summary = decode_set(
        model, wavs, keys, args.output_dir, args.nj, args.cluster, args.chunk_size, told
    )
    print(
        f"{args.output_dir}: {summary['utterances']} utterances, {summary['failed']} failed, "
        f"{summary['audio_seconds']:.0f} s of audio, RTF {summary['rtf']:.3f}"
    )
    return 0


def _path_or_value(args, name):
    value = getattr(args, name)
    return str(Path(value).absolute()) if name == "bpemodel" and value else value


def _read_wavs(triples):
    """Return utterance -> path from WAV_SCP,speech,sound; the path may hold commas."""
    from mambaasr.data.kaldi_file import parse_path, read_table

    if len(triples) != 1:
        raise UserError("--data_path_and_name_and_type: one source of audio is needed, not more")
    path, *kind = triples[0].rsplit(",", 2)
    if kind != ["speech", "sound"]:
        raise UserError(
            f"--data_path_and_name_and_type {triples[0]}: expected WAV_SCP,speech,sound"
        )
    problems = []
    wavs = read_table(path, parse_path, problems)
    if problems:
        raise UserError(str(problems[0]))
    if not wavs:
        raise UserError(f"{path}: no audio is listed; write 'id path' lines")
    return wavs


def _read_languages(path, keys, trained, config):
    """Return utterance -> language for a model that is told the language; else None.

    Raises:
        UserError: the model needs languages and one is missing or unknown to it.
    """
    from mambaasr.task import languages

    conf = trained.get("model_conf") or {}
    if trained.get("model") != languages.MODEL or conf.get("conditioning", "none") == "none":
        if path is not None and trained.get("model") != languages.MODEL:
            logging.warning(f"{path}: not used, for the model is not told the language")
        return None
    if path is None:
        raise UserError(
            f"{config}: the model was trained with the {conf['conditioning']} of each utterance: "
            "give --utt2lang FILE"
        )
    table = languages.read(path)
    languages.check(table, keys, path, conf.get("languages") or ())
    return dict(table)


def _read_keys(path):
    """Return the ids in the first column of a file, in its order."""
    from mambaasr.data.kaldi_file import parse_text, read_table

    problems = []
    keys = list(read_table(path, parse_text, problems))
    if problems:
        raise UserError(str(problems[0]))
    return keys


if __name__ == "__main__":
    run_main(main)
