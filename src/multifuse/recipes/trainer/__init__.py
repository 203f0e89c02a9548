"""Subclasses of transformers' Trainer: recipes, atomic checkpoints and weight averaging."""
