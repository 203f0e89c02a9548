"""Trains CLCR on spoken and written digits: noisy sounds and pictures of the same digit, speakers of test unseen.

From the folder as distributed (--data: audio/*.wav, image/*.png, labels.csv) to accuracy and F1.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "av_digits", *sys.argv[1:]]))
