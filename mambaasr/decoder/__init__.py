"""Decoders that a yaml can name."""
