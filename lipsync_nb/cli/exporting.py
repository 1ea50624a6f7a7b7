"""The command line's exports: ``lipsync-nb export``."""

from __future__ import annotations

import argparse
from typing import Any

from lipsync_nb import network
from lipsync_nb.system.console import tell


def add_commands(commands: Any) -> None:
    """Add ``export`` to a parser's commands."""
    text = "make an ONNX file of a published network's PyTorch checkpoint"
    parser = commands.add_parser("export", help=text, description=text)
    parser.add_argument("checkpoint", help="as torch.save wrote it, weights alone")
    parser.add_argument("out", help="OUT.onnx")
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    tell(str(network.export_checkpoint(options.checkpoint, options.out)))
