"""Models that CLCR is compared with: other fusions behind the same encoders, and only the text encoder."""
