"""Trains CLCR on spoken and written digits: noisy sounds and images of the same digit, with unseen speakers in test.

Reads the data set's folder as distributed (--data: audio/*.wav, image/*.png, labels.csv) and reports accuracy and F1.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "av_digits", *sys.argv[1:]]))
