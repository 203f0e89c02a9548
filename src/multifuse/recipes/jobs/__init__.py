"""Training jobs: what is trained on which data, by which recipe, and the files that a run writes."""
