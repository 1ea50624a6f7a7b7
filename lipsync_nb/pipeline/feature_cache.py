"""What the network computes from template frames alone, kept between uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.arrays import AnyArray, IndexArray


class FeatureCache:
    """Boundary tensors of a split graph for template frames, an array each, filled as they come.

    Memory is taken from the system only as slots are filled. Several threads may use it: two that
    fill the same slot write the same.

    Args:
        boundary: the tensors that cross the cut.
        frames: the template frames to keep, in ascending order.
    """

    def __init__(self, boundary: Sequence[BoundaryTensor], frames: IndexArray) -> None:
        self.boundary = tuple(boundary)
        self._slots = {int(frame): slot for slot, frame in enumerate(frames)}
        self._filled: set[int] = set()
        self._arrays = [np.empty((len(frames), *tensor.shape), tensor.dtype) for tensor in boundary]

    def __len__(self) -> int:
        """Template frames whose features are here."""
        return len(self._filled)

    @property
    def capacity(self) -> int:
        return len(self._slots)

    @property
    def nbytes(self) -> int:
        """Bytes of the features that are here."""
        return len(self) * sum(tensor.nbytes for tensor in self.boundary)

    def missing(self, frames: IndexArray) -> IndexArray:
        """Those of these template frames whose features are not here, each once, ascending."""
        wanted = sorted({int(f) for f in frames.flat} - self._filled)
        return np.array(wanted, np.int64)

    def put(self, frame: int, values: Sequence[AnyArray]) -> None:
        """Keep a frame's features, one array ``tensor.shape`` each, if it has a slot."""
        slot = self._slots.get(frame)
        if slot is None:
            return
        for array, value in zip(self._arrays, values, strict=True):
            array[slot] = value
        self._filled.add(frame)

    def slots(self, frames: IndexArray) -> list[AnyArray]:
        """Where these frames' features go, ``[n, *tensor.shape]`` each, to be written to.

        Empty where their slots do not follow each other. `mark` says that they were written.
        """
        slots = [self._slots.get(int(frame)) for frame in frames]
        start = slots[0]
        if start is None or slots != list(range(start, start + len(slots))):
            return []
        return [array[start : start + len(slots)] for array in self._arrays]

    def mark(self, frames: IndexArray) -> None:
        """Note that the features of these frames were written where `slots` said."""
        self._filled.update(frames.tolist())

    def gather(
        self, frames: IndexArray, others: Mapping[int, Sequence[AnyArray]]
    ) -> list[AnyArray]:
        """Features of these template frames, ``[n, *tensor.shape]`` each.

        Frames in successive slots are given as views, without a copy.

        Args:
            others: features of the frames that are not here.
        """
        start = self._slots.get(int(frames[0]), -1)
        slots = [self._slots.get(int(frame)) for frame in frames]
        here = all(int(frame) in self._filled for frame in frames)
        if here and slots == list(range(start, start + len(slots))):
            return [array[start : start + len(slots)] for array in self._arrays]
        rows = [self._row(int(frame), others) for frame in frames]
        return [np.stack(parts) for parts in zip(*rows, strict=True)]

    def _row(self, frame: int, others: Mapping[int, Sequence[AnyArray]]) -> Sequence[AnyArray]:
        if frame in self._filled:
            slot = self._slots[frame]
            return [array[slot] for array in self._arrays]
        return others[frame]


@dataclass(frozen=True)
class FeaturePlan:
    """Whether features are kept, of which template frames, and why.

    Attributes:
        frames: int64, ascending; empty: they are not kept.
        reason: one line.
    """

    frames: IndexArray
    reason: str


def plan_features(
    order: IndexArray, num_template: int, bytes_per_frame: int, budget_bytes: int, wanted: str
) -> FeaturePlan:
    """Choose the template frames whose features are kept.

    Args:
        order: template frame of every output frame.
        num_template: frames of the template.
        bytes_per_frame: features of one frame.
        budget_bytes: what they may take in all.
        wanted: ``auto`` keeps them where frames recur and memory is free, ``on`` always, ``off``
            never.
    """
    none = np.zeros(0, np.int64)
    uses = np.bincount(order, minlength=num_template)
    used = int((uses > 0).sum())
    what = f"{len(order)} frames use {used} template frames"
    if wanted == "off":
        return FeaturePlan(none, "feature cache off: as configured.")
    if wanted == "auto" and used == len(order):
        return FeaturePlan(none, f"feature cache off: {what}, none of them again.")
    if wanted == "auto":
        budget_bytes = min(budget_bytes, free_memory_bytes() // 2)
    capacity = min(num_template, budget_bytes // max(1, bytes_per_frame))
    if capacity == 0:
        found = f"found room for {budget_bytes / 1e6:.1f} MB, a frame takes"
        return FeaturePlan(none, f"feature cache off: {found} {bytes_per_frame / 1e6:.1f} MB.")
    kept = np.sort(np.argsort(-uses, kind="stable")[:capacity]).astype(np.int64)
    size = f"{min(capacity, used) * bytes_per_frame / 1e6:.0f} MB"
    held = "all" if capacity >= used else f"{capacity}"
    return FeaturePlan(kept, f"feature cache on: {what}, {held} are kept in {size}.")
