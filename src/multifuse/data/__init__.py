"""Readers of the benchmarks' data, and the batches that models read."""
