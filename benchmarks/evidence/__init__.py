"""Tests the claims of the paper: many small trainings, cached one by one, and the tables that they give."""
