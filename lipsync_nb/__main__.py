"""``python -m lipsync_nb``: the command line, for where its script is not on the path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
