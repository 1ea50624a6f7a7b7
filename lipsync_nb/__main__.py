"""``python -m lipsync_nb``: the command line, for where its script is not on the path."""

from .cli.main import run

if __name__ == "__main__":
    run()
