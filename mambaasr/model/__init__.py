"""Models that a yaml can name: what ESPnet's own does not do."""
