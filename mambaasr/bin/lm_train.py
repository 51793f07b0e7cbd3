"""Train a language model, or collect statistics: ESPnet's lm_train with mambaasr's classes."""

import argparse
from collections.abc import Sequence

from mambaasr.bin.asr_train import make_parser, train
from mambaasr.command import run_main

EXAMPLES = """\
Statistics (stage 6) and training (stage 7):
  lm_train --collect_stats true --config conf/train_lm.yaml --output_dir STATS ...
  lm_train --config conf/train_lm.yaml --output_dir EXP --resume true \\
      --train_data_path_and_name_and_type dump/raw/lm_train.txt,text,text \\
      --train_shape_file STATS/train/text_shape.char ... (valid_* likewise) \\
      --token_type char --token_list data/token_list/char/tokens.txt
"""


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the options that are answered without ESPnet."""
    return make_parser("lm", __doc__, EXAMPLES)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the command and its config, then train or collect statistics.

    Raises:
        UserError: an option, the config, a file or a checkpoint is wrong.
    """
    return train("lm", get_parser(), argv)


if __name__ == "__main__":
    run_main(main)
