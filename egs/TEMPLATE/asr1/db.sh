# Where the corpora lie. Edit a line, or set the variable in the environment, which wins:
#     AN4=/corpora/an4 ./run.sh
# "downloads" stands for the recipe's own folder of that name: stage 1 downloads into it.
# shellcheck disable=SC2034  # read by the recipes' local/data.sh

AN4=${AN4:-downloads}
