"""The command line's avatars from footage: ``lipsync-nb prepare``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from lipsync_nb.system.console import tell

from .progress import ProgressBar
from .rendering import numbers


def add_commands(commands: Any) -> None:
    """Add ``prepare`` to a parser's commands."""
    text = "make an avatar's folder of a video or of pictures"
    parser = commands.add_parser("prepare", help=text, description=text)
    parser.add_argument("footage", help="a video, or a folder of pictures")
    parser.add_argument("out", help="OUT, a new folder")
    parser.add_argument("--fps", help="frames a second, as 25 or 30000/1001; default: its own rate")
    _add_boxes(parser.add_argument_group("face boxes"))
    folder = parser.add_argument_group("the folder")
    folder.add_argument("--quality", type=int, default=95, metavar="N", help="of JPEGs; 0: PNG")
    folder.add_argument("--generator", help="generator network that goes into the folder")
    folder.add_argument("--audio-encoder", help="audio encoder that goes into the folder")
    folder.add_argument("--link", action="store_true", help="link to networks instead of copying")
    folder.add_argument("--filmstrip", help="FILE.jpg, a picture to check the boxes by")
    parser.set_defaults(run=_prepare)


def _add_boxes(group: Any) -> None:
    group.add_argument(
        "--boxes", default="auto", choices=["auto", "landmarks", "network", "square"],
        help="what they come from; auto: a square where one is drawn, else landmarks beside the "
        "footage, else the face network (default: auto)",
    )  # fmt: skip
    group.add_argument("--landmarks", help=".npy or .lms file, or a folder of .lms files")
    group.add_argument(
        "--face-network", action="append", default=[], metavar="FILE",
        help=".task file; or twice a .tflite file: detector, landmarks",
    )  # fmt: skip
    group.add_argument("--face-at", type=numbers(2), metavar="X,Y", help="of several, the one here")
    group.add_argument(
        "--box", type=numbers(4), metavar="X1,Y1,X2,Y2", help="drawn on a frame, to be followed"
    )
    group.add_argument("--box-frame", type=int, default=0, metavar="N", help="default: the first")
    group.add_argument(
        "--keyframe", type=_keyframe, action="append", default=[], metavar="N:X1,Y1,X2,Y2",
        help="one more drawn box; may be given often",
    )  # fmt: skip
    group.add_argument(
        "--box-rule", default="square", choices=["square", "outline"], help="outline: for Wav2Lip"
    )
    group.add_argument(
        "--missing", default="bridge", choices=["bridge", "keep"],
        help="frames without a face: a box between their neighbours', or as they were recorded "
        "(default: bridge)",
    )  # fmt: skip
    group.add_argument(
        "--smoothing-seconds", type=float, default=0.06, metavar="S",
        help="how far boxes are smoothed; 0: not at all (default: 0.06)",
    )  # fmt: skip


def _keyframe(text: str) -> tuple[int, tuple[float, ...]]:
    frame, _, box = text.partition(":")
    return int(frame), numbers(4)(box)


_keyframe.__name__ = "frame:x1,y1,x2,y2"


def _prepare(options: argparse.Namespace) -> None:
    from lipsync_nb.footage.preparing import prepare_avatar
    from lipsync_nb.media.imaging import check_picture_name, write_image
    from lipsync_nb.system.outputs import check_output_file

    if options.filmstrip:
        check_picture_name(check_output_file(options.filmstrip))
    with ProgressBar() as bar:
        result = prepare_avatar(
            options.footage, options.out, fps=options.fps, boxes=options.boxes,
            landmarks=options.landmarks, face_networks=options.face_network,
            face_at=options.face_at, box=options.box, box_frame=options.box_frame,
            keyframes=dict(options.keyframe), box_rule=options.box_rule, missing=options.missing,
            smoothing_seconds=options.smoothing_seconds, quality=options.quality,
            generator=options.generator, audio_encoder=options.audio_encoder,
            link_networks=options.link, progress=bar,
        )  # fmt: skip
    if options.filmstrip:
        write_image(Path(options.filmstrip), result.filmstrip)
    tell(str(result))
