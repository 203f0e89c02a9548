"""``python -m multifuse`` runs the ``multifuse`` command."""

import sys

from multifuse.recipes.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
