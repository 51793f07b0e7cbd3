"""Error rates, comparisons and the results page."""
