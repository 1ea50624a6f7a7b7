"""The command line's inspections: ``lipsync-nb inspect``."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from typing import Any

from lipsync_nb.system.console import tell
from lipsync_nb.system.outputs import check_output_file, refuse_inputs


def add_commands(commands: Any) -> None:
    """Add ``inspect`` to a parser's commands."""
    text = "say what is wrong with an avatar, footage, a network or a speech, and what to do"
    parser = commands.add_parser("inspect", help=text, description=text)
    parser.add_argument("path", help="avatar folder, 'demo', video, picture, network, or sound")
    parser.add_argument("--speech", metavar="FILE", help="what it is to say")
    parser.add_argument("--generator", metavar="FILE", help="instead of the avatar's own")
    parser.add_argument("--html", dest="out", metavar="OUT.html", help="a page with pictures, too")
    parser.set_defaults(run=_inspect)


def _inspect(options: argparse.Namespace) -> None:
    from lipsync_nb.inspection.inspecting import inspect
    from lipsync_nb.notebook.report import write_report

    from .progress import ProgressBar

    if options.out:
        inputs = (options.path, options.speech, options.generator)
        refuse_inputs(check_output_file(options.out), inputs)
    is_watched = sys.stderr is not None and sys.stderr.isatty()
    with ProgressBar() if is_watched else nullcontext():
        found = inspect(options.path, options.speech, options.generator)
    if options.out:
        write_report(options.out, found, title=f"Inspection of {found.path.name}")
    tell(str(found))
