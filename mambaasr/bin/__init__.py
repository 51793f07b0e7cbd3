"""Thin commands: parse, call, exit code; nothing below imports them."""
