"""Measures the kernels and encoders beside their peers: ``make bench``."""
