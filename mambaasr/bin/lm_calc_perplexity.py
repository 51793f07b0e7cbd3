"""Calculate the perplexity of a language model on a text, under the names of ESPnet's options."""

import argparse
from collections.abc import Sequence

from mambaasr.command import run_main
from mambaasr.errors import UserError


def get_parser() -> argparse.ArgumentParser:
    """Return the command's parser."""
    parser = argparse.ArgumentParser(
        prog="mambaasr lm_calc_perplexity",
        description=__doc__ + " Writes ppl, base, utt2ppl, utt2ntokens and perplexity.json.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data_path_and_name_and_type",
        required=True,
        metavar="FILE,text,text",
        help="'id text' lines",
    )
    add("--key_file", metavar="FILE", help="only the ids in its first column; None: all")
    add("--model_file", required=True, metavar="PTH", help="e.g. valid.loss.ave.pth")
    add("--train_config", metavar="YAML", help="None: config.yaml beside the model")
    add("--output_dir", required=True, metavar="DIR", help="where to write")
    add("--batch_size", type=int, default=32, help="texts in a batch; changes no result")
    add("--log_base", type=float, help="of the logarithm that is written to `base`; None: e")
    add("--dtype", default="float32", choices=["float32", "float64"], help="of the weights")
    add("--ngpu", type=int, default=0, help="0 for the CPU")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    args = get_parser().parse_args(argv)
    for name, least in (("batch_size", 1), ("ngpu", 0)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(args, name)}")
    path, *kind = args.data_path_and_name_and_type.rsplit(",", 2)
    if kind != ["text", "text"]:
        raise UserError(
            f"--data_path_and_name_and_type {args.data_path_and_name_and_type}: expected "
            "FILE,text,text"
        )
    if args.log_base is not None and not (args.log_base > 0 and args.log_base != 1):
        raise UserError(f"--log_base {args.log_base:g}: must be positive, and not 1")

    from mambaasr.decode.perplexity import measure

    found = measure(
        args.model_file,
        args.train_config,
        path,
        args.output_dir,
        key_file=args.key_file,
        batch_size=args.batch_size,
        log_base=args.log_base,
        dtype=args.dtype,
        device="cuda" if args.ngpu else "cpu",
    )
    print(
        f"{args.output_dir}: perplexity {found['perplexity']:.4g} a token, "
        f"{found['tokens']} tokens in {found['texts']} texts"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
