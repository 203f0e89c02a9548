"""Trains CLCR on Kinetics-Sounds: 31 classes, or those of --classes, sounds and actions.

From the media files and the published split lists (--media, --splits), or from what `multifuse prepare` made of them
(--data), to accuracy and F1. Without either it runs on a few synthetic clips that it encodes itself.
"""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main(["train", "ks", *sys.argv[1:]]))
