"""What this process holds of avatars between renders: one bounded store, whoever loaded them.

Who loads the same avatar again, in another cell of a notebook, finds what was opened for it before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lipsync_nb.system.limits import free_memory_bytes
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

Kind = Literal["template", "features"]
# Of the memory that is free: what avatars other than the last may hold.
_SHARE = 2


class Holding(Protocol):
    """What is held: a `Template`, or features."""

    @property
    def ram_bytes(self) -> int:
        """Of this process's own RAM."""

    @property
    def file_bytes(self) -> int:
        """In mapped files, which processes share, and which give way where RAM is short."""


@dataclass(frozen=True)
class Held:
    """One thing that is held.

    Attributes:
        name: of the avatar.
        kind: ``template`` or ``features``.
        ram_bytes, file_bytes: see `Holding`.
    """

    name: str
    kind: Kind
    ram_bytes: int
    file_bytes: int


@dataclass(frozen=True)
class SessionMemory(RichResult):
    """What this process holds of avatars, the one that was used last at the end."""

    rows: tuple[Held, ...]

    @property
    def ram_bytes(self) -> int:
        return sum(row.ram_bytes for row in self.rows)

    @property
    def table(self) -> Table:
        """A row for each template, and for each network's features."""
        return Table.of(
            [
                Column("avatar", lambda row: row.name, is_text=True),
                Column("holds", lambda row: row.kind, is_text=True),
                Column("RAM MB", lambda row: f"{row.ram_bytes / 1e6:.1f}"),
                Column("in files MB", lambda row: f"{row.file_bytes / 1e6:.1f}"),
            ],
            self.rows,
        )

    def __str__(self) -> str:
        free = f"{free_memory_bytes() / 1e6:,.0f} MB are free"
        return f"{self.ram_bytes / 1e6:,.0f} MB held in RAM, {free}\n{self.table}"


@dataclass(frozen=True, eq=False)
class _Entry:
    name: str
    key: Hashable
    value: Any


class Session:
    """The store: of every avatar the last template and the last features.

    What avatars other than the last one hold is let go, the least recently used first, as far as
    it takes more than half of the memory that is free. Any number of threads may use it.

    Args:
        free_bytes: tells how much memory is free.
    """

    def __init__(self, free_bytes: Callable[[], int] = free_memory_bytes) -> None:
        self._free_bytes = free_bytes
        self._lock = threading.RLock()
        # The owner that was used last is the last.
        self._held: dict[Hashable, dict[Kind, _Entry]] = {}

    def __reduce__(self) -> tuple[Callable[[bool], Session], tuple[bool]]:
        """Another process holds what it opens itself: nothing goes along."""
        return _restored, (self is SESSION,)

    def get(self, owner: Hashable, kind: Kind, key: Hashable) -> Any:
        """What an owner holds of this kind, where it was put under this key; else None."""
        with self._lock:
            entries = self._held.pop(owner, None)
            if entries is None:
                return None
            self._held[owner] = entries
            entry = entries.get(kind)
            return entry.value if entry is not None and entry.key == key else None

    def last(self, owner: Hashable, kind: Kind) -> Any:
        """What an owner holds of this kind, or None."""
        with self._lock:
            entry = self._held.get(owner, {}).get(kind)
            return None if entry is None else entry.value

    def put(self, owner: Hashable, kind: Kind, key: Hashable, value: Holding, name: str) -> None:
        """Hold this for an owner, in place of what it held of this kind."""
        with self._lock:
            entries = self._held.pop(owner, {})
            entries[kind] = _Entry(name, key, value)
            self._held[owner] = entries
            self._make_room()

    def let_go(self, owner: Hashable, kind: Kind | None = None) -> None:
        """Hold nothing for an owner any more, or nothing of this kind."""
        with self._lock:
            if kind is None:
                self._held.pop(owner, None)
            else:
                self._held.get(owner, {}).pop(kind, None)

    def clear(self) -> None:
        """Hold nothing any more."""
        with self._lock:
            self._held.clear()

    def _make_room(self) -> None:
        *others, _ = self._held
        sizes = {owner: self._ram_bytes(owner) for owner in others}
        for owner in others:
            if _SHARE * sum(sizes.values()) <= self._free_bytes():
                return
            del self._held[owner], sizes[owner]

    def _ram_bytes(self, owner: Hashable) -> int:
        return sum(entry.value.ram_bytes for entry in self._held[owner].values())

    def memory(self) -> SessionMemory:
        """What is held now."""
        with self._lock:
            return SessionMemory(
                tuple(
                    Held(entry.name, kind, entry.value.ram_bytes, entry.value.file_bytes)
                    for entries in self._held.values()
                    for kind, entry in entries.items()
                )
            )


SESSION = Session()


def _restored(is_shared: bool) -> Session:
    return SESSION if is_shared else Session()


def session_memory() -> SessionMemory:
    """What this process holds of avatars between renders, in RAM and in mapped files.

    `Avatar.forget` frees what it holds of one.

    Example:
        >>> print(session_memory())  # doctest: +SKIP
    """
    return SESSION.memory()
