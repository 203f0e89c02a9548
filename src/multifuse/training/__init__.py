"""Training on transformers' Trainer, and the measures that results are reported in."""
