# Where the corpora lie. Edit a line, or set the variable in the environment, which wins:
#     AN4=/corpora/an4 ./run.sh
# "downloads" is the recipe's own folder of that name: stage 1 of AN4 and Mini LibriSpeech downloads
# into it, others say how to get the corpus.
# shellcheck disable=SC2034  # read by the recipes' local/data.sh

AN4=${AN4:-downloads}
MINI_LIBRISPEECH=${MINI_LIBRISPEECH:-downloads}
LIBRISPEECH=${LIBRISPEECH:-downloads/LibriSpeech}
AISHELL=${AISHELL:-downloads/aishell}
TEDLIUM3=${TEDLIUM3:-downloads/TEDLIUM_release-3}
GIGASPEECH=${GIGASPEECH:-downloads/GigaSpeech}
SPGISPEECH=${SPGISPEECH:-downloads/spgispeech}
COMMONVOICE=${COMMONVOICE:-downloads/cv-corpus}
FLEURS=${FLEURS:-downloads/fleurs}
VOXPOPULI=${VOXPOPULI:-downloads/voxpopuli}
COVOST2=${COVOST2:-downloads/covost2}
MLS=${MLS:-downloads/mls}
CSJ=${CSJ:-downloads/CSJ}
