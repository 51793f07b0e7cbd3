"""The driver of recipes: from a corpus to its error rates, with ESPnet2's stages and options."""
