"""Post-encoders that a yaml can name."""
