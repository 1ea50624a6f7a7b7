"""The pictures that the generator learns from: drawn by processes, kept where it trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.media.imaging import resize
from lipsync_nb.pipeline.batches import visual_input
from lipsync_nb.types.arrays import FloatArray, ImageArray, IndexArray
from lipsync_nb.types.records import SYNCTALK_328 as SPEC
from lipsync_nb.types.records import Box

from .presenter import NUM_FRAMES, MouthState, draw_box, face_box, mouth_center, template_pose
from .template import DEMO_FOLDER
from .tracks import Tracks, training_clips
from .workers import worker_pool

BANK_CHUNK = 250
# So many examples are shuffled at a time, so that new pictures do not wait for all the old ones.
ROUND = 4000
LOOK_SECONDS = 2.0
MOUTH_HALF_WIDTH, MOUTH_ABOVE, MOUTH_BELOW = 80, 60, 100
MOUTH_WEIGHT = 8.0
# The mask's upper edge, where a seam would be seen.
TOP_ROWS, TOP_WEIGHT = 12, 4.0


@dataclass(frozen=True)
class Moment:
    """One training example: the pose of a template frame, and a frame of a clip."""

    pose: int
    clip: int
    frame: int


def draw_target(pose_index: int, mouth: np.ndarray) -> ImageArray:
    """Drawn truth as the generator should paint it, uint8 ``[320, 320, 3]`` BGR."""
    pose = template_pose(pose_index)
    box = face_box(pose)
    drawn = draw_box(pose, MouthState.from_array(mouth), box)
    return resize(drawn, SPEC.crop_size, SPEC.crop_size, SPEC.interpolation)[SPEC.roi, SPEC.roi]


def mouth_region(pose_index: int) -> tuple[slice, slice]:
    """Rows and columns of the mouth in the generator's picture of a template frame."""
    pose = template_pose(pose_index)
    box = Box(*face_box(pose))
    x, y = mouth_center(pose)
    scale = SPEC.crop_size / box.width
    row = round((y - box.y1) * scale) - SPEC.margin
    column = round((x - box.x1) * scale) - SPEC.margin
    rows = slice(max(0, row - MOUTH_ABOVE), min(SPEC.input_size, row + MOUTH_BELOW))
    return rows, slice(column - MOUTH_HALF_WIDTH, column + MOUTH_HALF_WIDTH)


def _draw_chunk(job: tuple[Path, list[Moment], list[FloatArray]]) -> None:
    """Draw and write one file, which appears under its name when it is complete."""
    file, moments, mouths = job
    images = [draw_target(m.pose, mouth) for m, mouth in zip(moments, mouths, strict=True)]
    places = np.array([(m.pose, m.clip, m.frame) for m in moments], np.int32)
    partial = file.with_name(f"partial_{file.name}")
    np.savez(partial, moments=places, images=np.stack(images))
    partial.replace(file)


def draw_bank(folder: Path, size: int, seed: int = 0, workers: int = 1) -> None:
    """Draw targets of random moments into ``bank_NNNN.npz`` files; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    mouths = [clip.mouth for clip in training_clips()]
    files = {n: folder / f"bank_{n:04d}.npz" for n in range(size // BANK_CHUNK)}
    jobs = []
    for number, file in files.items():
        if not file.exists():
            plan = _plan(mouths, seed + number)
            jobs.append((file, plan, [mouths[m.clip][m.frame] for m in plan]))
    with worker_pool(workers) as pool:
        for _ in pool.map(_draw_chunk, jobs):
            pass


def _plan(mouths: list[FloatArray], seed: int) -> list[Moment]:
    rng = np.random.default_rng(seed)
    moments = []
    for _ in range(BANK_CHUNK):
        clip = int(rng.integers(len(mouths)))
        frame = int(rng.integers(len(mouths[clip])))
        moments.append(Moment(int(rng.integers(NUM_FRAMES)), clip, frame))
    return moments


Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class Bank:
    """Training examples as bytes in the memory of a device.

    They are read by `refresh`; what is drawn later, by the thread that `watch` starts.
    """

    def __init__(self, folder: Path, tracks: Tracks) -> None:
        self.folder, self.tracks = folder, tracks
        self.device = tracks.rows.device
        template = load_avatar(DEMO_FOLDER).template
        visuals = [visual_input(template.crop(i), SPEC) for i in range(len(template))]
        pixels = np.stack([np.round(255 * visual).astype(np.uint8) for visual in visuals])
        weights = np.ones((NUM_FRAMES, 1, SPEC.input_size, SPEC.input_size), np.float32)
        for index in range(NUM_FRAMES):
            rows, columns = mouth_region(index)
            weights[index, 0, :TOP_ROWS] = TOP_WEIGHT
            weights[index, 0, rows, columns] = MOUTH_WEIGHT
        self.visuals = torch.from_numpy(pixels).to(self.device)
        self.weights = torch.from_numpy(weights).to(self.device)
        self.moments = np.zeros((0, 3), np.int32)
        self.images: list[torch.Tensor] = []
        self._seen: set[Path] = set()

    def __len__(self) -> int:
        return len(self.moments)

    def refresh(self, most: int | None = None) -> None:
        """Read the files that appeared since the last time, or so many of them."""
        for file in sorted(set(self.folder.glob("bank_*.npz")) - self._seen)[:most]:
            with np.load(file) as chunk:
                moments, images = chunk["moments"], chunk["images"]
            self.images.extend(torch.from_numpy(images).to(self.device).unbind())
            self.moments = np.concatenate([self.moments, moments])
            self._seen.add(file)

    def watch(self) -> None:
        """From now on take up in a thread what is drawn, while the network trains."""

        def look() -> None:
            while True:
                self.refresh()
                time.sleep(LOOK_SECONDS)

        threading.Thread(target=look, daemon=True).start()

    def batches(self, batch_size: int, seed: int) -> Iterator[Batch]:
        """Endless shuffled batches, see `batch`."""
        rng = np.random.default_rng(seed)
        while True:
            order = rng.permutation(len(self))[:ROUND]
            for start in range(0, len(order) - batch_size + 1, batch_size):
                yield self.batch(order[start : start + batch_size], rng)

    def batch(self, chosen: IndexArray, rng: np.random.Generator) -> Batch:
        """Visual, audio, target and weight of these examples, float32, channels first."""
        poses, clips, frames = self.moments[chosen].astype(np.int64).T
        versions = rng.integers(len(self.tracks.rows), size=len(chosen))
        target = torch.stack([self.images[i] for i in chosen]).permute(0, 3, 1, 2)
        # Not waited for: the device has steps before this one to do.
        places = torch.from_numpy(poses).to(self.device, non_blocking=True)
        return (
            self.visuals[places].float() / 255,
            self.tracks.audio(clips, frames, versions),
            target.float() / 255,
            self.weights[places],
        )
