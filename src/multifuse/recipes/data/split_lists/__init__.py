"""Readers of the benchmarks' split lists as they are published, one benchmark a file."""
