"""``python -m mambaasr.recipe TEMPLATE [OPTION...]``: what egs/TEMPLATE/asr1/asr.sh calls."""

from mambaasr.command import run_main
from mambaasr.recipe.run import main

run_main(main)
