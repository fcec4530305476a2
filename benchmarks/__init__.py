"""Measurements beside peers: whole processes, in turn, on the same files with the same weights."""
