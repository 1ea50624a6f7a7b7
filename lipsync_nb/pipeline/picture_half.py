"""The half of a network that takes pictures alone, with its features as they are kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.network.inference import Session, check_numbers
from lipsync_nb.network.packing import pack, packed_boundary
from lipsync_nb.types.arrays import AnyArray


class PictureHalf:
    """From picture tensors to features; its session is opened when it is first needed.

    Any number of threads may use it.

    Args:
        open_session: opens the session.
        boundary: what the session gives.
        is_packed: the features are kept in 8 bits, see `pack`.
        name: for messages.

    Attributes:
        stored: the features, as they are kept.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        boundary: Sequence[BoundaryTensor],
        is_packed: bool,
        name: Path,
    ) -> None:
        self._open_session, self._boundary, self._name = open_session, tuple(boundary), name
        self._is_packed = is_packed
        self.stored = packed_boundary(boundary) if is_packed else tuple(boundary)
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._own = threading.local()

    def open(self) -> Session:
        """The session.

        Raises:
            NetworkError: it cannot be opened.
        """
        with self._lock:
            if self._session is None:
                self._session = self._open_session()
            return self._session

    @property
    def is_open(self) -> bool:
        return self._session is not None

    def __call__(self, feeds: Mapping[str, AnyArray]) -> list[AnyArray]:
        """Features ``[n, *shape]`` of picture tensors ``[n, ...]``, one for each of ``stored``.

        Raises:
            NetworkError: it cannot be run, or gives NaN or infinity.
        """
        outputs = self.open()(feeds)
        if self._is_packed:
            count = len(outputs[0])
            stored = [np.empty((count, *tensor.shape), tensor.dtype) for tensor in self.stored]
            pack(self._boundary, outputs, stored)
            outputs = stored
        self._check(outputs)
        return outputs

    def run_into(self, feeds: Mapping[str, AnyArray], slots: Sequence[AnyArray]) -> bool:
        """As the call, written where the features are kept.

        Args:
            slots: contiguous arrays ``[n, *shape]``, one for each of ``stored``.

        Returns:
            False, and nothing was run, where ``n`` is not the batch that the session takes.
        """
        count = len(slots[0])
        outputs = self._scratch(count) if self._is_packed else slots
        if not self.open().run_into(feeds, outputs):
            return False
        if self._is_packed:
            pack(self._boundary, outputs, slots)
        self._check(slots)
        return True

    def _scratch(self, count: int) -> list[AnyArray]:
        """A thread's own arrays for what the session gives: fresh memory takes longer to get."""
        arrays: list[AnyArray] = getattr(self._own, "arrays", [])
        if not arrays or len(arrays[0]) != count:
            arrays = [np.empty((count, *t.shape), t.dtype) for t in self._boundary]
            self._own.arrays = arrays
        return arrays

    def _check(self, features: Sequence[AnyArray]) -> None:
        for feature in features:
            check_numbers(feature, self._name)


def noise_of(boundary: Sequence[BoundaryTensor], count: int) -> list[AnyArray]:
    """Features for a trial, ``[count, *shape]`` each."""
    rng = np.random.default_rng(0)
    return [(rng.random((count, *t.shape), np.float32)).astype(t.dtype) for t in boundary]
