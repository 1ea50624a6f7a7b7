"""The demo avatar that ships with the package: complete, small, and following its speech."""

from pathlib import Path

import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import crop_face
from lipsync_nb.experiments.quality import demo_mouth_opening, pearson
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import SYNCTALK_328 as SPEC

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def demo() -> lnb.Avatar:
    return lnb.load_avatar("demo")


def painted(avatar: lnb.Avatar, frame: lnb.Frame) -> ImageArray:
    """What the generator paints of a frame, uint8 ``[320, 320, 3]`` BGR."""
    box = avatar.template.boxes[frame.template_index]
    crop = crop_face(frame.data, box, SPEC.crop_size, SPEC.interpolation)
    return crop[SPEC.roi, SPEC.roi]


def test_data_folder_is_complete_and_small(demo: lnb.Avatar) -> None:
    models = lnb.demo_folder() / "models"
    networks = models / "generator.onnx", models / "audio_encoder.onnx"
    assert (demo.generator, demo.audio_encoder) == networks
    assert (demo.template.width, demo.template.height) == (1280, 720)
    assert 150 <= len(demo.template) <= 250
    assert set(lnb.demo_speeches()) == {"hello", "unseen_voice"}
    total = sum(file.stat().st_size for file in (ROOT / "data").rglob("*") if file.is_file())
    assert total <= 45_000_000


@pytest.mark.parametrize(
    ("name", "frames", "least"), [("generator.onnx", 0, 0.9), ("generator_full.onnx", 50, 0.88)]
)
def test_mouth_follows_a_voice_that_training_never_heard(
    demo: lnb.Avatar, name: str, frames: int, least: float
) -> None:
    """The opening measured from pixels against the synthesiser's truth: r, and in time."""
    pytest.importorskip("skia", reason="the presenter's drawing code needs the train extra")
    from tools.demo_avatar.evaluate import best_lag

    file = lnb.demo_speeches()["unseen_voice"]
    with np.load(file.with_suffix(".truth.npz")) as stored:
        truth = stored["mouth"][: frames or None, 0]
    avatar = lnb.load_avatar("demo", lnb.demo_folder() / "models" / name)
    config = lnb.RenderConfig(max_frames=frames)
    found = lnb.iter_frames(avatar, lnb.load_speech(file), config)
    shown = np.array([demo_mouth_opening(painted(demo, frame)) for frame in found])
    assert len(shown) == len(truth)
    assert pearson(shown, truth) >= least
    assert best_lag(shown, truth) == 0


def test_what_the_network_does_not_paint_is_the_recording(demo: lnb.Avatar) -> None:
    frames = list(lnb.iter_frames(demo, lnb.load_speech(lnb.demo_speeches()["hello"]),
                                  lnb.RenderConfig(max_frames=4)))  # fmt: skip
    for frame in frames:
        box = demo.template.boxes[frame.template_index]
        changed = (frame.data != demo.template.frames[frame.template_index]).any(axis=2)
        assert changed[box.rows, box.columns].any()
        changed[box.rows, box.columns] = False
        assert not changed.any()
