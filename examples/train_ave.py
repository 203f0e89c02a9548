"""Trains CLCR on AVE: one of 28 events per clip or, with --localise, an event or background for each second.

Reads the media files and the published split lists (--media, --splits), or the folder that `multifuse prepare` made of
them (--data), and reports accuracy and F1. Without either, it runs on a few synthetic clips that it encodes itself.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "ave", *sys.argv[1:]]))
