"""What is found out and made of a generator once, and kept on disk: checked before its use."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lipsync_nb.errors import ProviderError
from lipsync_nb.system.cache_folders import cache_folders, user_cache_folders
from lipsync_nb.system.kept_files import (
    Owners,
    clear_places,
    parsed,
    read_kept,
    reason_of,
    shown,
    trusted_owners,
    write_kept,
)
from lipsync_nb.types.arrays import Shape
from lipsync_nb.types.records import ModelSpec

from .checks import check_halves, check_whole
from .files import LARGEST_BYTES
from .output_range import OutputRange

PREPARATION_VERSION = 9
_LARGEST_INDEX = 100_000

Files = dict[str, bytes]
Result = TypeVar("Result")


@dataclass(frozen=True)
class NetworkStore:
    """Folders where prepared networks are kept, the first choice first; none: nothing is kept.

    Attributes:
        folders: see `cache_folders`.
        name: for messages.
        owners: whose files are taken.
        what: is kept; for messages.
        is_quiet: nothing is told of what cannot be kept, or is made anew.
    """

    folders: tuple[Path, ...]
    name: str
    owners: Owners = field(default_factory=trusted_owners)
    what: str = "prepared network"
    is_quiet: bool = False
    _told: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def fetch(
        self,
        key: Sequence[object],
        names: Sequence[str],
        make: Callable[[], Files],
        use: Callable[[Files], Result],
    ) -> Result:
        """Use the files that were kept under a key; made, and kept, where they are not there.

        Files that are damaged, of somebody who is not trusted, or of no use are made anew; where
        no folder can be written, nothing is kept. A store says so in one line.

        Args:
            key: everything that the files depend on.
            names: of the files.
            make: gives the files' contents by name.
            use: makes of the files what is wanted; kept files that it raises for are damaged.

        Raises:
            ProviderError: `use` does, whatever the files.
        """
        stem, reason = _stem(key), ""
        for folder in self.folders:
            try:
                return use(_read_files(folder, stem, names, self.owners))
            except (FileNotFoundError, NotADirectoryError):
                continue
            except (ProviderError, MemoryError):
                raise
            except Exception as error:  # whatever may be in the files
                reason = reason or reason_of(error)
        places = [f"{stem}.json", *(f"{stem}-{name}" for name in names)]
        # Told, where there is anything to tell, before the work begins.
        place = self._place(places, reason) if reason else None
        files = make()
        result = use(files)
        if not reason:
            place = self._place(places, "")
        if place is not None:
            self._keep(place, stem, files)
        return result

    def _place(self, names: Sequence[str], reason: str) -> Path | None:
        """Where the files will be kept, cleared; one line says what was not right there."""
        damaged = f"is damaged ({reason})" if reason else ""
        try:
            place = clear_places(self.folders, names, self.owners) if self.folders else None
        except OSError as error:
            text = f"{damaged} and cannot be kept" if damaged else "cannot be kept"
            self._warn(f"{text} ({error}).")
            return None
        if damaged:
            self._warn(f"{damaged}; it is made anew.")
        return place

    def _keep(self, folder: Path, stem: str, files: Files) -> None:
        try:
            _write_files(folder, stem, files)
        except OSError as error:
            self._warn(f"cannot be kept ({error}).")

    def _warn(self, text: str) -> None:
        """One line for all that is not right with a store: its networks share their fate."""
        if not self._told and not self.is_quiet:
            self._told.append(text)
            warnings.warn(f"{self.name}: its {self.what} {text}", stacklevel=4)


def _stem(key: Sequence[object]) -> str:
    digest = hashlib.sha256(repr((PREPARATION_VERSION, *key)).encode()).hexdigest()
    return f"network-{digest[:24]}"


def _read_files(folder: Path, stem: str, names: Sequence[str], owners: Owners) -> Files:
    """The files of these names; what else the index may name is never looked for."""
    index = f"{stem}.json"
    entries = parsed(read_kept(folder / index, owners, _LARGEST_INDEX), index)
    if set(entries) != set(names):
        found = ", ".join(map(shown, sorted(entries)[:3])) or "none"
        raise ValueError(f"{index} names {found}, expected {', '.join(names)}")
    return {name: _read_file(folder / f"{stem}-{name}", entries[name], owners) for name in names}


def _read_file(path: Path, entry: dict[str, Any], owners: Owners) -> bytes:
    size = int(entry["bytes"])
    if not 0 <= size <= LARGEST_BYTES:
        raise ValueError(f"{path.name} is said to have {size} bytes")
    try:
        content = read_kept(path, owners, size, exact=True)
    except FileNotFoundError as error:
        raise ValueError(f"{path.name} is missing") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ValueError(f"{path.name} differs from its check sum")
    return content


def _write_files(folder: Path, stem: str, files: Files) -> None:
    """Write the files, then their index, each at once: without the index they do not count."""
    entries = {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    }
    for name, content in files.items():
        write_kept(folder / f"{stem}-{name}", content)
    write_kept(folder / f"{stem}.json", json.dumps(entries).encode())


def code_store() -> NetworkStore:
    """Where machine code is kept: what runs as code counts in the user's own folder alone.

    Where that is another user's, or damaged, the code is compiled anew, which takes half a second.
    """
    folders = tuple(folder / "compiled" for folder in user_cache_folders()[:1])
    return NetworkStore(folders, "lipsync_nb", what="machine code", is_quiet=True)


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
