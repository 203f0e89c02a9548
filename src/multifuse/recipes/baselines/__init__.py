"""Models that CLCR is compared with: other fusions behind the same encoders, one modality, and pooled features."""
