"""Searches over scorers, several utterances at once; needs torch, the ops and hypothesis states."""
