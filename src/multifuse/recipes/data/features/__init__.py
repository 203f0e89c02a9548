"""Data sets of precomputed features: MMSA files, their safe unpickler and a synthetic set."""
