"""Augmentations of features that a yaml can name."""
