"""Files made once and kept on disk: checked before their use, made anew where damaged."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lipsync_nb.errors import ProviderError
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

from .files import LARGEST_BYTES

PREPARATION_VERSION = 8
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
    """

    folders: tuple[Path, ...]
    name: str
    owners: Owners = field(default_factory=trusted_owners)
    what: str = "prepared network"
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
        if not self._told:
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
