"""Draws the demo avatar's recording: 200 frames in which the presenter says a sentence.

    python -m tools.demo_avatar.template

writes ``data/demo/full_body_video.mp4``, ``cache/crop_rectangles.json`` and the speech clips.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.pipeline.sinks import Mp4Sink
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import Speech

from .presenter import FPS, NUM_FRAMES, MouthState, draw_frame, face_box, template_pose
from .synthesis import HELD_OUT_VOICE, SpokenClip, synthesise

DEMO_FOLDER = Path(__file__).parents[2] / "data" / "demo"
TEMPLATE_CRF = 10
RATE, PITCH = 155, 50
DEMO_VOICE = "en-us+f2"
TEMPLATE_TEXT = (
    "Welcome. While I talk, every frame of this recording is kept, so that later I can say "
    "something else, in exactly the same light."
)
SPEECHES = {
    "hello": (
        DEMO_VOICE,
        "Hello! I am a drawing that learned to speak. Give me a sound file, and I will say it, "
        "word by word, as fast as your computer can paint me.",
    ),
    "unseen_voice": (
        HELD_OUT_VOICE,
        "This voice was never heard in training. Five brown foxes jump over the sleepy dog, "
        "and nobody knows who whistled.",
    ),
}


def template_mouths() -> np.ndarray:
    """Mouth of every template frame, float32 ``[200, 5]``, from the recording's own speech."""
    mouths = synthesise(TEMPLATE_TEXT, DEMO_VOICE, 160, 50).mouth
    missing = max(0, NUM_FRAMES - len(mouths))
    return np.pad(mouths, ((0, missing), (0, 0)))[:NUM_FRAMES]


def template_frames() -> Iterator[ImageArray]:
    """Frames of the recording, uint8 ``[720, 1280, 3]`` BGR."""
    for index, mouth in enumerate(template_mouths()):
        yield draw_frame(template_pose(index), MouthState.from_array(mouth))


def write_template(folder: Path = DEMO_FOLDER) -> None:
    """Write the recording and its boxes in the origin's layout."""
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    config = RenderConfig(crf=TEMPLATE_CRF, preset="slow")
    silent = Speech(features=np.zeros((NUM_FRAMES, 512), np.float32))
    with Mp4Sink(folder / "full_body_video.mp4", silent, FPS, config) as sink:
        for frame in template_frames():
            sink.write(frame)
    boxes = {str(i): {"rect": list(face_box(template_pose(i)))} for i in range(NUM_FRAMES)}
    text = json.dumps(boxes, indent=None, separators=(",", ":"))
    (folder / "cache" / "crop_rectangles.json").write_text(text + "\n", encoding="utf-8")


def write_speeches(folder: Path = DEMO_FOLDER) -> None:
    """Write the demo's clips as FLAC, each with the truth it was drawn from (``.npz``).

    Their phonemes are added by `tools.demo_avatar.phonemes`.
    """
    (folder / "speech").mkdir(parents=True, exist_ok=True)
    for name, (voice, text) in SPEECHES.items():
        clip = synthesise(text, voice, RATE, PITCH)
        write_flac(folder / "speech" / f"{name}.flac", clip)
        np.savez_compressed(folder / "speech" / f"{name}.truth.npz", mouth=clip.mouth)


def write_flac(path: Path, clip: SpokenClip) -> None:
    """Write a clip's samples as 16 kHz mono FLAC."""
    samples = (np.clip(clip.samples, -1, 1) * 32767).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=16_000, layout="mono")
        stream.format = "s16"
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    write_template()
    write_speeches()
