"""Data sets of media files: decoding, preparation, augmentation and synthetic clips."""
