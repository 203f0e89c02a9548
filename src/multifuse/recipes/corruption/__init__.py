"""Evaluation of trained models on corrupted inputs and with missing modalities."""
