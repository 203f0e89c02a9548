"""Trains CLCR on CMU-MOSEI: from an MMSA feature file to the sentiment measures.

Without --data it runs on a small embedded synthetic data set, to show the job from end to end.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "mosei", *sys.argv[1:]]))
