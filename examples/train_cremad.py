"""Trains CLCR on CREMA-D: 6 emotions, speech and faces.

From the media files and the published split lists (--media, --splits), or from what multifuse.data.prepare made of them
(--data), to accuracy and F1. Without either it runs on a few synthetic clips that it encodes itself.
"""

import sys

from multifuse.training.audiovisual_command import main

if __name__ == "__main__":
    sys.exit(main("cremad", __doc__))
