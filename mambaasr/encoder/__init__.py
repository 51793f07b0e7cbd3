"""Encoders that a yaml can name."""
