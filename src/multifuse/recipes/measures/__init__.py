"""Measures of predictions against labels, and how a model is scored with them."""
