"""Whether features of template frames are kept, and of which frames: what it costs and gives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.arrays import IndexArray

# Milliseconds of one core, on two cores of an AMD EPYC 9004 with the network at full width: its
# picture half takes 34 ms for 1.2 GMAC; fresh memory and packing take 5 ms for 4.9 MB.
_MS_PER_GMAC = 28.0
_MS_PER_MB = 1.0


@dataclass(frozen=True)
class FeatureCosts:
    """What one frame's features cost.

    Attributes:
        multiply_adds: of computing them.
        num_bytes: of keeping them.
    """

    multiply_adds: int
    num_bytes: int

    @property
    def compute_ms(self) -> float:
        return self.multiply_adds / 1e9 * _MS_PER_GMAC

    @property
    def keep_ms(self) -> float:
        return self.num_bytes / 1e6 * _MS_PER_MB


@dataclass(frozen=True)
class FeaturePlan:
    """Whether features are kept, of which template frames, and why.

    Attributes:
        frames: int64, ascending; empty: they are not kept.
        reason: one line.
    """

    frames: IndexArray
    reason: str


@dataclass(frozen=True)
class FilesState:
    """What is known of the files that features are kept in.

    Attributes:
        num_found: frames whose features are there, or in memory, already.
        why_not: why none are written; empty: they are.
    """

    num_found: int = 0
    why_not: str = "as configured"


def plan_features(
    order: IndexArray,
    num_template: int,
    costs: FeatureCosts,
    budget_bytes: int,
    wanted: str,
    files: FilesState | None = None,
) -> FeaturePlan:
    """Choose the template frames whose features are kept.

    Args:
        order: template frame of every output frame.
        num_template: frames of the template.
        budget_bytes: what they may take in all.
        wanted: ``on`` keeps them always, ``off`` never; ``auto`` where an earlier process left
            them or the next will find them, or where computing them once saves more in this clip
            than keeping them costs; and in half of the memory that is free at most.
    """
    files = files or FilesState()
    uses = np.bincount(order, minlength=num_template)
    used = int((uses > 0).sum())
    what = f"{len(order)} frames use {used} template frames"
    if wanted == "off":
        return _none("as configured")
    if wanted == "auto":
        # What files hold is mapped, and takes no memory that others could want.
        found_bytes = files.num_found * costs.num_bytes
        budget_bytes = min(budget_bytes, free_memory_bytes() // 2 + found_bytes)
    capacity = min(num_template, budget_bytes // max(1, costs.num_bytes))
    if capacity == 0:
        found = f"found room for {budget_bytes / 1e6:.1f} MB, a frame takes"
        return _none(f"{found} {costs.num_bytes / 1e6:.1f} MB")
    is_shared = bool(files.num_found) or not files.why_not
    if wanted == "auto" and not is_shared and used == len(order):
        return _none(f"{what}, none of them again; no files of them ({files.why_not})")
    saved, spent = (len(order) - used) * costs.compute_ms, used * costs.keep_ms
    if wanted == "auto" and not is_shared and saved < spent:
        return _none(f"{what}; keeping them takes {spent:.0f} ms and saves {saved:.0f} ms")
    kept = np.sort(np.argsort(-uses, kind="stable")[:capacity]).astype(np.int64)
    size = f"{min(capacity, used) * costs.num_bytes / 1e6:.0f} MB"
    held = "all" if capacity >= used else f"{capacity}"
    why_not = files.why_not or ("there is no room for all" if capacity < num_template else "")
    where = f"; not in files: {why_not}" if why_not else ", and in files"
    return FeaturePlan(kept, f"feature cache on: {what}, {held} are kept in {size}{where}.")


def _none(reason: str) -> FeaturePlan:
    return FeaturePlan(np.zeros(0, np.int64), f"feature cache off: {reason}.")
