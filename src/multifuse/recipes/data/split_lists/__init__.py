"""Readers of the split lists that the benchmarks publish, one module per benchmark."""
