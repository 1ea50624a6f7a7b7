"""The command line: ``lipsync-nb``, or ``python -m lipsync_nb``."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from .cli import batches, experiments, exporting, inspecting, preparing, quality, rendering
from .cli.running import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit code, see `run_command`."""
    return run_command(_parser(), arguments, is_last=False)


def run() -> NoReturn:
    """`main` for a process of its own."""
    sys.exit(run_command(_parser(), None, is_last=True))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lipsync-nb", description="Audio-driven lip-sync of a recorded person."
    )
    parser.add_argument("--version", action="version", version=version("lipsync_nb"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    rendering.add_commands(commands)
    batches.add_commands(commands)
    experiments.add_commands(commands)
    exporting.add_commands(commands)
    preparing.add_commands(commands)
    inspecting.add_commands(commands)
    quality.add_commands(commands)
    return parser


if __name__ == "__main__":
    run()
