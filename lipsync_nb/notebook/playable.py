"""Sound and video in HTML that stands alone, and the picture of a sound."""

from __future__ import annotations

import io
import itertools
import wave
from pathlib import Path

import numpy as np

from lipsync_nb.errors import LipsyncError
from lipsync_nb.media.imaging import encode_picture, shrunk
from lipsync_nb.media.video import VideoFile
from lipsync_nb.types.records import SAMPLE_RATE

from .markup import Markup, data_uri, element, joined

INLINE_LIMIT_BYTES = 24_000_000
_COLUMNS = 600


def video_html(path: Path, width: int = 640) -> Markup:
    """A video that plays inline, or a line that says why it is not shown.

    A frame of it takes its place on pages that do not let it play: as its poster, and within it
    for those that leave out the element itself.
    """
    size = path.stat().st_size
    still = still_uri(path, width)
    picture = element("img", src=still, alt=f"a frame of {path.name}", style="max-width:100%")
    if size > INLINE_LIMIT_BYTES:
        most = f"the {INLINE_LIMIT_BYTES / 1e6:.0f} MB that are shown inline"
        text = f"{path} is {size / 1e6:.0f} MB, over {most}; open the file itself."
        return joined([picture if still else "", element("p", text)])
    shown: dict[str, object] = {"src": data_uri(path.read_bytes(), "video/mp4"), "poster": still}
    return element(
        "video", picture if still else "", controls=True, playsinline=True, width=width, **shown
    )


def still_uri(path: Path, width: int = 640) -> str | None:
    """A frame from the middle of a video as a JPEG's address; None where it has none."""
    try:
        video = VideoFile(path)
        frame = video.read(len(video) // 2)
    except LipsyncError:
        return None
    return data_uri(encode_picture(shrunk(frame, width)), "image/jpeg")


def peaks(samples: np.ndarray) -> list[tuple[float, float]]:
    """The lowest and highest of samples, float32 ``[n]``, in each column of a waveform."""
    edges = np.linspace(0, len(samples), _COLUMNS + 1).astype(int)
    pieces = (samples[a:b] for a, b in itertools.pairwise(edges) if b > a)
    return [(float(piece.min()), float(piece.max())) for piece in pieces]


def wav_bytes(samples: np.ndarray) -> bytes:
    """A WAV file, 16 bits, of samples float32 ``[n]``, 16 kHz mono, -1..1."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
