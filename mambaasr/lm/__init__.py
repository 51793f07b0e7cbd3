"""Language models that a yaml can name."""
