"""A synthetic corpus of spoken numbers, dates and commands."""
