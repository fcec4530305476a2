"""Comparisons with other programs, which take turns on the same files with the same weights."""
