"""Data folders, audio, filters and token lists."""
