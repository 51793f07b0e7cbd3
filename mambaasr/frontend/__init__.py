"""Front ends that a yaml can name."""
