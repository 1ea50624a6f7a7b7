"""Renders the demo speech and puts three of its frames side by side, for the README.

python -m tools.demo_avatar.preview [--out data/demo/preview.jpg] [--frames 12 40 77]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lipsync_nb import RenderConfig, demo_speeches, iter_frames, load_avatar, load_speech
from lipsync_nb.media.imaging import resize, write_image

from .template import DEMO_FOLDER

WIDTH, HEIGHT, QUALITY = 640, 360, 88


def preview(out: Path, chosen: list[int]) -> None:
    """Write the frames with these numbers, each 640x360, as one JPEG."""
    speech = load_speech(demo_speeches()["hello"])
    config = RenderConfig(max_frames=max(chosen) + 1)
    frames = iter_frames(load_avatar("demo"), speech, config)
    pictures = [resize(f.data, WIDTH, HEIGHT, "area") for f in frames if f.index in chosen]
    write_image(out, np.hstack(pictures), QUALITY)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO_FOLDER / "preview.jpg")
    parser.add_argument("--frames", type=int, nargs="+", default=[12, 40, 77])
    options = parser.parse_args()
    preview(options.out, options.frames)
