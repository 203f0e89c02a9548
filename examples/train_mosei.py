"""Trains CLCR on CMU-MOSEI: reads an MMSA feature file and reports the sentiment measures.

Without --data, it runs on a small built-in synthetic data set that shows the job from end to end.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "mosei", *sys.argv[1:]]))
