"""What is found out and made of a generator once, and kept on disk: checked before its use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lipsync_nb.system.cache_folders import cache_folders
from lipsync_nb.system.kept_files import (
    parsed,
    trusted_owners,
)
from lipsync_nb.types.arrays import Shape
from lipsync_nb.types.records import ModelSpec

from .checks import check_halves, check_whole
from .output_range import OutputRange
from .store import Files, NetworkStore, Result

WHOLE, INDEPENDENT, DEPENDENT = "whole.onnx", "independent.onnx", "dependent.onnx"
_RANGE, _RIGHT, _PACKING = "range.json", "right.txt", "packing.json"


@dataclass(frozen=True, eq=False)
class KeptNetworks:
    """The networks, and findings about them, in a store.

    Attributes:
        spec: geometry of the network.
    """

    store: NetworkStore
    spec: ModelSpec

    @classmethod
    def beside(cls, avatar: Path, generator: Path, spec: ModelSpec) -> KeptNetworks:
        """What is kept of an avatar's generator: see `cache_folders`.

        Args:
            avatar: its folder or file.
            generator: the network's file.
        """
        folders = tuple(cache_folders(avatar))
        return cls(NetworkStore(folders, str(generator), trusted_owners(avatar)), spec)

    def output_range(self, digest: str, find: Callable[[], OutputRange]) -> OutputRange:
        """What the output of the network with this digest means."""

        def make() -> Files:
            return {_RANGE: json.dumps(asdict(find())).encode()}

        return self.store.fetch(("range", digest), (_RANGE,), make, _range_of)

    def check_form(self, digest: str, check: Callable[[], None]) -> None:
        """Check, once, that the form with this digest is right; what `check` raises is passed."""

        def make() -> Files:
            check()
            return {_RIGHT: b"right"}

        self.store.fetch(("form", digest), (_RIGHT,), make, _check_right)

    def packing_error(self, key: Sequence[object], find: Callable[[], float]) -> float:
        """What features in 8 bits change, 0..1; found once for a network and an avatar."""

        def make() -> Files:
            return {_PACKING: json.dumps({"differing": find()}).encode()}

        return self.store.fetch(("packing", *key), (_PACKING,), make, _packing_of)

    def whole(
        self,
        key: Sequence[object],
        names: Sequence[str],
        make: Callable[[], Files],
        use: Callable[[Files], Result],
    ) -> Result:
        """Use the network in one piece, see `NetworkStore.fetch`.

        Args:
            names: of its picture and its audio input.
        """

        def checked(files: Files) -> Result:
            check_whole(files[WHOLE], *self._ends(names))
            return use(files)

        return self.store.fetch(("whole", *key), (WHOLE,), make, checked)

    def halves(
        self,
        key: Sequence[object],
        names: Sequence[str],
        make: Callable[[], Files],
        use: Callable[[Files], Result],
    ) -> Result:
        """Use the network in two halves; as `whole`."""

        def checked(files: Files) -> Result:
            check_halves(files[INDEPENDENT], files[DEPENDENT], *self._ends(names))
            return use(files)

        return self.store.fetch(("halves", *key), (INDEPENDENT, DEPENDENT), make, checked)

    def _ends(self, names: Sequence[str]) -> tuple[dict[str, Shape], Shape]:
        """Shapes of a prepared network's inputs by name, and of its pictures."""
        size = self.spec.input_size
        inputs = dict(zip(names, self.spec.input_shapes, strict=True))
        return inputs, (size, size, 3)


def _range_of(files: Files) -> OutputRange:
    found = parsed(files[_RANGE], _RANGE)
    levels, note = found["levels"], found["note"]
    if type(levels) is not int or levels not in (1, 255) or not isinstance(note, str):
        raise ValueError(f"{_RANGE} holds {levels!r} levels, expected 1 or 255")
    return OutputRange(levels, note)


def _packing_of(files: Files) -> float:
    differing = float(parsed(files[_PACKING], _PACKING)["differing"])
    if not 0 <= differing <= 1:
        raise ValueError(f"{_PACKING} holds {differing}, expected a share of 0 to 1")
    return differing


def _check_right(files: Files) -> None:
    if files[_RIGHT] != b"right":
        raise ValueError(f"{_RIGHT} holds something else")
