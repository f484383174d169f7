"""Attacks on runs and their files; `python -m benchmarks.reliability --help`."""
