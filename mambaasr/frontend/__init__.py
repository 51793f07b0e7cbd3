"""Front ends, and augmentation of their features, that a yaml can name."""
