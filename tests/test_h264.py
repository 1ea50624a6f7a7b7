"""The H.264 encoder gives the same bytes for the same pictures, each time."""

import io

import av
import numpy as np
import pytest

from lipsync_nb.media.h264 import H264Settings, open_h264
from lipsync_nb.media.imaging import bgr_to_i420
from lipsync_nb.types.arrays import ImageArray


def encoded(pictures: list[ImageArray], settings: H264Settings) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        encoder = open_h264(container, settings)
        for number, picture in enumerate(pictures):
            for packet in encoder.write(picture, number):
                container.mux(packet)
        for packet in encoder.finish():
            container.mux(packet)
        encoder.close()
    return file.getvalue()


@pytest.mark.parametrize("preset", ["superfast", "medium"])
@pytest.mark.parametrize("width", [336, 360, 384])
def test_the_same_pictures_are_the_same_bytes(width: int, preset: str) -> None:
    """In AVX-512 x264's macroblock tree is otherwise, where a row has 21 or 23 macroblocks."""
    rng = np.random.default_rng(0)
    whole = np.repeat(np.repeat(rng.integers(0, 256, (40, 60, 3), np.uint8), 8, 0), 8, 1)
    pictures = [bgr_to_i420(whole[k : k + 240, 2 * k : 2 * k + width].copy()) for k in range(16)]
    settings = H264Settings(width, 240, 25, 28, preset, threads=1)
    files = set()
    for _ in range(8):
        # What is in fresh memory is another thing each time.
        waste = [np.full(int(rng.integers(1e5, 3e6)), rng.integers(256), np.uint8) for _ in "abc"]
        del waste
        files.add(encoded(pictures, settings))
    assert len(files) == 1
