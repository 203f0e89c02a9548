"""Recipes: command-line jobs that prepare data, train models on the benchmarks and evaluate them."""
