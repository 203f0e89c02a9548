"""Private helpers of the library: argument checks, masks, precision, initialisation."""
