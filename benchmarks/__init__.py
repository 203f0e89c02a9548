"""Benchmarks of speed, accuracy and robustness, run as modules from the root of the repository."""
