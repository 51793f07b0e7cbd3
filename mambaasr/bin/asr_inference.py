"""Decode a set with a trained model, under the names of ESPnet's options."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mambaasr.command import run_main
from mambaasr.decode.inputs import read_keys, read_languages, read_prompts, read_wavs
from mambaasr.decode.options import SEARCH, check_search, get_parser, parse
from mambaasr.errors import TRY_AGAIN, UserError

__all__ = ["get_parser", "main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    args = parse(argv)
    logging.basicConfig(
        level=args.log_level, format="%(asctime)s %(levelname)s: %(message)s", stream=sys.stderr
    )
    check_search(args)
    if args.ngpu and (args.quantize_asr_model or args.quantize_lm):
        raise UserError("--quantize_asr_model, --quantize_lm: for the CPU; decode with --ngpu 0")

    from mambaasr.config import has_decoder, read
    from mambaasr.decode.asr import Model, decode_set

    if Path(args.output_dir).exists() and not Path(args.output_dir).is_dir():
        raise UserError(f"--output_dir {args.output_dir}: a file of that name is there")
    config = args.asr_train_config or Path(args.asr_model_file).with_name("config.yaml")
    paths = (config, args.asr_model_file, args.lm_train_config, args.lm_file)
    trained = read(config)
    features = trained.get("input_size") is not None
    wavs = read_wavs(args.data_path_and_name_and_type, features)
    keys = read_keys(args.key_file) if args.key_file else list(wavs)
    if not has_decoder(trained) and args.search in ("attention", "rescore"):
        raise UserError(
            f"--search {args.search}: {config} has no decoder; choose ctc_prefix or joint"
        )
    if not has_decoder(trained) and args.ctc_weight != 1.0:
        logging.info(f"the model has no decoder: ctc_weight is 1.0, not {args.ctc_weight}")
        args.ctc_weight = 1.0
    given = read_languages(args.utt2lang, keys, trained, config, args.prompt)
    prompts = read_prompts(args.prompt, args.utt2lang, keys)
    model = Model(
        *(str(Path(path).absolute()) if path else None for path in paths),
        options=tuple(sorted((name, _absolute(name, getattr(args, name))) for name in SEARCH)),
        ngpu=args.ngpu,
        seed=args.seed,
        batch_size=args.batch_size,
        espnet_search=args.espnet_search,
        search=args.search,
        ngram_file=args.ngram_file and str(Path(args.ngram_file).absolute()),
        phrases=args.phrases and str(Path(args.phrases).absolute()),
        phrase_weight=args.phrase_weight,
    )
    summary = decode_set(
        *(model, wavs, keys, args.output_dir),
        *(args.nj, args.cluster, args.chunk_size, given, prompts, args.prompt),
    )
    print(
        f"{args.output_dir}: {summary['utterances']} utterances, {summary['failed']} failed, "
        f"{summary['audio_seconds']:.0f} s of audio, RTF {summary['rtf']:.3f}"
    )
    if summary["failed"]:
        print(f"what failed, and why: {args.output_dir}/failed.tsv")
    if summary["no_speech"]:
        print(
            f"{summary['no_speech']} hypotheses have a text where CTC finds no speech: "
            f"{args.output_dir}/no_speech.tsv"
        )
    if summary["again"]:
        print(
            f"{summary['again']} failures may pass, see {args.output_dir}/failed.tsv: the same "
            f"command tries these again (exit status {TRY_AGAIN})"
        )
        return TRY_AGAIN
    return 0


def _absolute(name: str, value: Any) -> Any:
    return str(Path(value).absolute()) if name == "bpemodel" and value else value


if __name__ == "__main__":
    run_main(main)
