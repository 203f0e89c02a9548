"""Data sets: the benchmarks' split lists, feature files and media files."""
