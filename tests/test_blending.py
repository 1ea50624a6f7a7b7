"""Soft edges, masks and matched colours, against a plain way that shares no code with them."""

from dataclasses import replace
from pathlib import Path

import builders
import cv2
import numpy as np
import pytest
from test_patches import BARE_SPEC, BOXES, TOLERANCE, template_of

import lipsync_nb as lnb
from lipsync_nb.errors import AvatarError
from lipsync_nb.experiments import seam_contrast, seam_of_clip
from lipsync_nb.media.imaging import bgr_to_i420, i420_planes
from lipsync_nb.pipeline.blending import HARD, Blending
from lipsync_nb.pipeline.colour_match import LARGEST_GAIN, gain_field, known_cells, matched
from lipsync_nb.pipeline.compositing import Compositor, composite_frame, composite_picture
from lipsync_nb.types.arrays import ImageArray
from lipsync_nb.types.records import SYNCTALK_328, ModelSpec, Pixels, Predictions

SOFT = Blending(is_soft=True)
# Planes that were recorded, and the same converted from BGR, differ by a rounding each.
PLANES_TOLERANCE = 2


def plain_rise(length: int, spec: ModelSpec, width: float) -> list[float]:
    """Pixel by pixel: how far it is from where the network's picture begins."""
    found = []
    for pixel in range(length):
        nearest = min(pixel, length - 1 - pixel) - length * spec.margin / spec.crop_size
        t = min(1.0, max(0.0, nearest / min(width, max(1.0, length / 4))))
        found.append(t**2 * (3 - 2 * t))
    return found


def plain_blend(
    frame: ImageArray, hard: ImageArray, box: lnb.types.records.Box, spec: ModelSpec, pixels: int
) -> ImageArray:
    """The recording where a hard paste begins, its prediction in the middle, mixed between."""
    width = pixels or max(2.0, min(box.width, box.height) / 16)
    down = plain_rise(box.height, spec, width)
    across = plain_rise(box.width, spec, width)
    mixed = frame.astype(np.float64)
    for y, share in enumerate(down):
        for x, other in enumerate(across):
            place = box.y1 + y, box.x1 + x
            mixed[place] += share * other * (hard[place].astype(np.float64) - frame[place])
    return np.floor(mixed + 0.5).astype(np.uint8)


def noise(spec: ModelSpec, seed: int = 0) -> ImageArray:
    size = spec.input_size
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("spec", [SYNCTALK_328, BARE_SPEC], ids=lambda spec: spec.name)
@pytest.mark.parametrize("pixels", [0, 7])
def test_a_soft_edge_is_that_of_the_plain_way(spec: ModelSpec, pixels: int) -> None:
    template, planar = template_of("bgr", spec), template_of("i420", spec)
    soft = replace(SOFT, feather_pixels=pixels)
    for index, box in enumerate(BOXES[:3]):
        prediction = noise(spec, index)
        hard = composite_frame(template, index, prediction)
        expected = plain_blend(template.frames[index], hard, box, spec, pixels)
        found = composite_picture(template, index, prediction, blending=soft)
        assert np.abs(found.astype(int) - expected).max() <= 1
        planes = i420_planes(composite_picture(planar, index, prediction, blending=soft))
        wanted = i420_planes(bgr_to_i420(expected))
        assert np.abs(planes[0].astype(int) - wanted[0]).max() <= PLANES_TOLERANCE


@pytest.mark.parametrize("spec", [SYNCTALK_328, BARE_SPEC], ids=lambda spec: spec.name)
def test_colours_of_a_soft_edge_in_planes(spec: ModelSpec) -> None:
    """Four pixels share a colour there, so that one of noise would not be the plain way's."""
    template, planar = template_of("bgr", spec), template_of("i420", spec)
    for index, box in enumerate(BOXES[:3]):
        prediction = cv2.GaussianBlur(noise(spec, index), (0, 0), spec.input_size / 40)
        prediction = cv2.normalize(prediction, None, 0, 255, cv2.NORM_MINMAX)
        hard = composite_frame(template, index, prediction)
        expected = plain_blend(template.frames[index], hard, box, spec, 0)
        planes = i420_planes(composite_picture(planar, index, prediction, blending=SOFT))
        for one, other in zip(planes, i420_planes(bgr_to_i420(expected)), strict=True):
            assert np.abs(one.astype(int) - other).max() <= PLANES_TOLERANCE


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
@pytest.mark.parametrize("spec", [SYNCTALK_328, BARE_SPEC], ids=lambda spec: spec.name)
def test_the_edge_is_the_recording_and_the_middle_the_prediction(
    spec: ModelSpec, pixels: Pixels
) -> None:
    """To the bit, also for a family that paints its whole box."""
    template = template_of(pixels, spec)
    for index, box in enumerate(BOXES):
        prediction = noise(spec, index)
        hard = composite_picture(template, index, prediction)
        soft = composite_picture(template, index, prediction, blending=SOFT)
        original, _ = template.canvas(index)
        if pixels == "i420":
            hard, soft, original = (i420_planes(p)[0] for p in (hard, soft, original))
        inside = np.zeros(soft.shape[:2], bool)
        inside[box.y1 + 1 : box.y2 - 1, box.x1 + 1 : box.x2 - 1] = True
        assert (soft[~inside] == original[~inside]).all()
        middle = (
            slice(box.y1 + box.height // 3, box.y2 - box.height // 3),
            slice(box.x1 + box.width // 3, box.x2 - box.width // 3),
        )
        if box.width > 1:
            assert (soft[middle] == hard[middle]).all()
            assert (hard[middle] != original[middle]).any()


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
@pytest.mark.parametrize("blending", [HARD, SOFT], ids=["hard", "soft"])
def test_a_part_of_a_prediction(pixels: Pixels, blending: Blending) -> None:
    """None of it is the template frame, most of it nearly all: no step at either end."""
    template = template_of(pixels, SYNCTALK_328)
    for index in range(len(BOXES)):
        prediction = noise(SYNCTALK_328, index)
        whole = composite_picture(template, index, prediction, blending=blending)
        parts = [
            composite_picture(template, index, prediction, blending=blending, strength=strength)
            for strength in (0.0, 1e-4, 0.5, 0.9999)
        ]
        original, _ = template.canvas(index)
        assert (parts[0] == original).all()
        assert np.abs(parts[1].astype(int) - original).max() <= 1
        half = (whole.astype(int) + original) / 2
        assert np.abs(parts[2] - half).max() <= 1
        assert np.abs(parts[3].astype(int) - whole).max() <= 1


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_any_number_of_workers_gives_the_same(n_jobs: int, pixels: Pixels) -> None:
    template, frames = template_of(pixels, BARE_SPEC), np.array([2, 0, 5, 4, 4])
    blending = replace(SOFT, is_matched=True)
    images = np.stack([noise(BARE_SPEC, int(index)) for index in frames])
    strengths = np.array([1, 0.25, 0, 1, 0.5], np.float32)
    expected = [
        composite_picture(template, int(i), image, blending=blending, strength=float(s))
        for i, image, s in zip(frames, images, strengths, strict=True)
    ]
    with Compositor(
        template, n_jobs, blending=blending, strengths=lambda frames: strengths[frames]
    ) as compositor:
        for _ in range(2):
            found = compositor.pictures(Predictions(np.arange(5), frames, images))
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one, other)
                compositor.pool.give(one)


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
@pytest.mark.parametrize("cache", ["memory", "mmap"])
def test_renders_in_the_network_are_those_of_workers(
    avatar: lnb.Avatar, speech: lnb.Speech, pixels: Pixels, cache: str
) -> None:
    config = lnb.RenderConfig(
        provider="cpu", feature_dtype="float32", paste="feather", feather_pixels=9, pixels=pixels,
        cache=cache, max_frames=9,
    )  # fmt: skip
    by_workers = [frame.data for frame in lnb.iter_frames(avatar, speech, config)]
    hard = [f.data for f in lnb.iter_frames(avatar, speech, replace(config, paste="hard"))]
    config = replace(config, compositing="network")
    stream = lnb.FrameStream(avatar, speech, config)
    assert not stream.shortfalls
    for frame, worked, pasted in zip(stream, by_workers, hard, strict=True):
        assert np.abs(frame.data.astype(int) - worked).max() <= 2 * TOLERANCE
        assert (frame.data != pasted).any()


def test_matched_colours_are_done_by_workers(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    """Never another picture without a word."""
    config = lnb.RenderConfig(
        provider="cpu", feature_dtype="float32", colour_match=True, max_frames=5
    )
    expected = [frame.data for frame in lnb.iter_frames(avatar, speech, config)]
    stream = lnb.FrameStream(avatar, speech, replace(config, compositing="network"))
    (missed,) = stream.shortfalls
    assert missed.startswith("asked for compositing in the network, composited by workers (colour")
    for frame, other in zip(stream, expected, strict=True):
        np.testing.assert_array_equal(frame.data, other)


@pytest.mark.parametrize("spec", [SYNCTALK_328, BARE_SPEC], ids=lambda spec: spec.name)
def test_a_cast_is_taken_back(spec: ModelSpec) -> None:
    """And a mouth in the middle, which the recording does not have, is not taken for one."""
    template = template_of("bgr", spec)
    face = template.face(3)
    size, margin = spec.input_size, spec.margin
    right = cv2.resize(face, (spec.crop_size,) * 2, interpolation=cv2.INTER_CUBIC)
    right = right[margin : margin + size, margin : margin + size].copy()
    right[size * 5 // 8 : size * 7 // 8, size // 4 : size * 3 // 4] = (30, 20, 60)
    x = np.linspace(-1, 1, size)[None, :, None]
    cast = np.array([0.88, 0.95, 1.12]) * (1 + 0.04 * x)
    seen = np.clip(right * cast, 0, 255).astype(np.uint8)
    found = matched(seen, face, spec)
    before, after = (np.abs(p.astype(int) - right).mean() for p in (seen, found))
    assert before > 6
    assert after < 1.5
    untouched = matched(right, face, spec)
    assert np.abs(untouched.astype(int) - right).mean() < 0.5


def test_gains_are_bounded() -> None:
    face = template_of("bgr", SYNCTALK_328).face(3)
    dark, light = (np.full((320, 320, 3), level, np.uint8) for level in (10, 250))
    for prediction in (dark, light):
        gains = gain_field(prediction, face, SYNCTALK_328)
        assert 1 / LARGEST_GAIN - 1e-6 <= gains.min() <= gains.max() <= LARGEST_GAIN + 1e-6
    assert known_cells(BARE_SPEC)[:8].all()
    assert known_cells(BARE_SPEC).sum() == 8 * 16 + 16 + 2 * 7
    assert known_cells(SYNCTALK_328).sum() == 60


def write_masks(folder: Path, masks: list[ImageArray]) -> None:
    folder.mkdir()
    for number, mask in enumerate(masks):
        cv2.imwrite(str(folder / f"{number}.png"), mask)


@pytest.fixture
def masked_folder(tmp_path: Path) -> Path:
    """An avatar whose frames show their prediction in the left half of the box alone."""
    folder = builders.write_synctalk_avatar(tmp_path / "person", num_frames=3)
    masks = []
    for number, (x1, y1, x2, y2) in enumerate(builders.box_track(3)):
        mask = np.zeros((240, 320), np.uint8)
        mask[y1:y2, x1 : (x1 + x2) // 2] = 255
        masks.append(mask[y1:y2, x1:x2] if number else mask)
    write_masks(folder / "masks", masks)
    return folder


def test_masks_say_where_predictions_go(masked_folder: Path, speech: lnb.Speech) -> None:
    """Of the frame's size, or of the box's."""
    avatar = lnb.load_avatar(masked_folder)
    config = lnb.RenderConfig(paste="feather", feather_pixels=3, max_frames=6, order="index")
    stream = lnb.FrameStream(avatar, speech, config)
    assert "masks/: a mask for each frame." in stream.notes
    bare = replace(avatar, path=masked_folder.with_name("none"))
    for frame, unmasked in zip(stream, lnb.FrameStream(bare, speech, config), strict=True):
        box = avatar.boxes[frame.template_index]
        middle = (box.x1 + box.x2) // 2
        recorded = avatar.template.frames[frame.template_index]
        assert (frame.data[:, middle:] == recorded[:, middle:]).all()
        assert (frame.data[:, :middle] == unmasked.data[:, :middle]).all()
        assert (frame.data != recorded).any()
    stream = lnb.FrameStream(avatar, speech, replace(config, paste="hard"))
    assert "masks/ is not used: it goes with paste='feather'." in stream.notes


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        (np.zeros((240, 200), np.uint8), r"0\.png: is 200x240, expected \d+x\d+ as the face box"),
        (np.zeros((240, 320), np.uint16), r"0\.png: found levels of 16 bits, expected 8"),
        (np.full((240, 320, 3), (0, 9, 255), np.uint8), r"0\.png: found colours, expected grey"),
        (None, r"masks: found 2 masks, expected 3"),
    ],
    ids=["size", "16 bits", "colours", "number"],
)
def test_masks_that_cannot_be_used(
    masked_folder: Path, speech: lnb.Speech, mask: ImageArray | None, text: str
) -> None:
    if mask is None:
        (masked_folder / "masks" / "2.png").unlink()
    else:
        cv2.imwrite(str(masked_folder / "masks" / "0.png"), mask)
    avatar = lnb.load_avatar(masked_folder)
    with pytest.raises(AvatarError, match=text):
        lnb.FrameStream(avatar, speech, lnb.RenderConfig(paste="feather"))
    assert len(lnb.FrameStream(avatar, speech)) > 0


def test_a_traced_frame_is_the_rendered_one(avatar: lnb.Avatar, speech: lnb.Speech) -> None:
    config = lnb.RenderConfig(paste="feather", colour_match=True, max_frames=3, prepare=False)
    traced = lnb.FrameTracer(avatar, speech, config)
    for frame in lnb.iter_frames(avatar, speech, config):
        assert np.abs(traced[frame.index].frame.astype(int) - frame.data).max() <= 1


@pytest.mark.parametrize("pixels", ["bgr", "i420"])
def test_seams_are_measured(pixels: Pixels) -> None:
    template = template_of(pixels, SYNCTALK_328)
    darker = np.asarray(template.crop(4)[4:324, 4:324] * 0.8, np.uint8)
    original, _ = template.canvas(4)
    recorded = seam_contrast(template, 4, original)
    hard = seam_contrast(template, 4, composite_picture(template, 4, darker))
    soft = composite_picture(template, 4, darker, blending=SOFT)
    assert recorded.contrast == pytest.approx(1, abs=0.2)
    # A fifth of 128 less.
    assert hard.step - recorded.step > 12
    assert seam_contrast(template, 4, soft).step - recorded.step < 3
    assert "times the recording's" in str(hard)
    one = lnb.Frame(0, 4, 0.0, original)
    assert seam_of_clip(template, [one, one]) == recorded
    with pytest.raises(AvatarError, match="found no frames"):
        seam_of_clip(template, [])
