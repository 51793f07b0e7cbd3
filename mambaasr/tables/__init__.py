"""Tables of papers and of our own ablations: read, run, measure and print them."""
