"""What a trained CLCR model computes on a split, gathered in one pass and shown as one HTML page."""
