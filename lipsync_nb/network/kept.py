"""What is found out and made of a generator once, and kept: each kind checked before its use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from lipsync_nb.system.kept_files import parsed
from lipsync_nb.types.records import ModelSpec

from .binding import Shape
from .checks import check_halves, check_whole
from .inference import generator_inputs
from .normal_form import OutputRange
from .store import Files, NetworkStore, Result

WHOLE, INDEPENDENT, DEPENDENT = "whole.onnx", "independent.onnx", "dependent.onnx"
_RANGE, _RIGHT = "range.json", "right.txt"


@dataclass(frozen=True, eq=False)
class KeptNetworks:
    """The networks, and findings about them, in a store.

    Attributes:
        spec: geometry of the network.
    """

    store: NetworkStore
    spec: ModelSpec

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
        inputs = dict(zip(names, generator_inputs(self.spec), strict=True))
        return inputs, (size, size, 3)


def _range_of(files: Files) -> OutputRange:
    found = parsed(files[_RANGE], _RANGE)
    levels, note = found["levels"], found["note"]
    if type(levels) is not int or levels not in (1, 255) or not isinstance(note, str):
        raise ValueError(f"{_RANGE} holds {levels!r} levels, expected 1 or 255")
    return OutputRange(levels, note)


def _check_right(files: Files) -> None:
    if files[_RIGHT] != b"right":
        raise ValueError(f"{_RIGHT} holds something else")
