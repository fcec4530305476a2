"""Benchmarks: each is a command, `python -m benchmarks.NAME`; results are in `results/`."""
