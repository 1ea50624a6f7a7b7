"""Whose network is opened, as the stages of the pipeline see it."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, Protocol


class Owner(Protocol):
    """Whose generator is opened: what an `Avatar` gives."""

    @property
    def path(self) -> Path:
        """Its folder or file, beside which prepared networks are kept."""

    @property
    def fingerprint(self) -> str:
        """Of its frames and boxes: what is calibrated belongs to them."""

    def require_generator(self) -> Path:
        """Its generator's file."""

    def recall_features(self, key: Hashable) -> Any:
        """What is remembered under this key, or None."""

    def remember_features(self, key: Hashable, features: Any) -> None:
        """Remember these under this key, and nothing else; None: nothing."""
