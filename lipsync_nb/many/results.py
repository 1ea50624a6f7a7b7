"""What a batch of clips gave."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lipsync_nb.errors import BatchError
from lipsync_nb.types.rich import RichResult
from lipsync_nb.types.table import Column, Table

State = Literal["rendered", "kept", "elsewhere", "failed"]


@dataclass(frozen=True)
class ClipOutcome:
    """What became of one job.

    Attributes:
        out: the output's path.
        state: ``rendered``; ``kept``, as it was there already and nothing that it is made from
            changed; ``elsewhere``, another batch is making it; ``failed``.
        num_frames, seconds, fps: of the clip, also where it is kept; fps without opening.
        error: one sentence where it failed.
        notes: what was chosen or found odd, a line each.
        worker: host and process.
    """

    out: str
    state: State
    num_frames: int = 0
    seconds: float = 0.0
    fps: float = 0.0
    error: str = ""
    notes: tuple[str, ...] = ()
    worker: str = ""


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is.

    Attributes:
        done, total: clips.
        failed: of those that are done.
        num_frames: of those that were rendered in this call.
        elapsed_seconds: since it began.
        last: the clip that was just done.
        num_kept: clips that were there already.
    """

    done: int
    total: int
    failed: int
    num_frames: int
    elapsed_seconds: float
    last: ClipOutcome
    num_kept: int = 0

    @property
    def fps(self) -> float:
        """Frames a second of all workers together, opening included."""
        return self.num_frames / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float:
        """Until all are done, where the others take as long as these."""
        made = self.done - self.num_kept
        left = self.total - self.done
        return self.elapsed_seconds * left / made if made > 0 else float("inf")


BatchCallback = Callable[[BatchProgress], None]


@dataclass(frozen=True)
class BatchResult(RichResult):
    """What became of all jobs of a batch.

    Attributes:
        outcomes: in the order of the jobs.
        seconds: of the whole call.
        manifest: the file that says the same for the next call.
        notes: what is odd about the manifest, or went wrong with workers, a line each.
    """

    outcomes: tuple[ClipOutcome, ...]
    seconds: float
    manifest: str
    notes: tuple[str, ...] = ()

    def count(self, state: State) -> int:
        """Clips of this state."""
        return sum(outcome.state == state for outcome in self.outcomes)

    @property
    def failures(self) -> tuple[ClipOutcome, ...]:
        """Those that failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == "failed")

    @property
    def num_frames(self) -> int:
        """Frames that were rendered in this call."""
        return sum(o.num_frames for o in self.outcomes if o.state == "rendered")

    def raise_if_failed(self) -> None:
        """Raise `BatchError` with the first failure's sentence where a clip failed."""
        if self.failures:
            rest = len(self.failures) - 1
            more = f" (and {rest} more)" if rest else ""
            raise BatchError(f"{self.failures[0].out}: {self.failures[0].error}{more}")

    @property
    def head(self) -> str:
        """The batch in a line."""
        states: tuple[State, ...] = ("rendered", "kept", "elsewhere", "failed")
        counts = ", ".join(f"{self.count(s)} {s}" for s in states if self.count(s))
        fps = self.num_frames / self.seconds if self.seconds > 0 else 0.0
        speed = f", {fps:.1f} FPS together" if self.num_frames else ""
        clips = "clip" if len(self.outcomes) == 1 else "clips"
        return f"{len(self.outcomes)} {clips}: {counts} in {self.seconds:.1f} s{speed}"

    @property
    def table(self) -> Table:
        """A row for each clip."""
        return Table.of(
            [
                Column("clip", self._name_of, is_text=True),
                Column("state", lambda o: o.state, is_text=True),
                Column("frames", lambda o: o.num_frames or "-"),
                Column("seconds", lambda o: f"{o.seconds:.1f}" if o.seconds else "-"),
                Column("FPS without opening", lambda o: f"{o.fps:.1f}" if o.fps else "-"),
                Column("problem", lambda o: o.error, is_text=True),
            ],
            self.outcomes,
        )

    def _name_of(self, outcome: ClipOutcome) -> str:
        """From the manifest's folder on, where it lies there."""
        folder = os.path.join(os.path.abspath(os.path.dirname(self.manifest)), "")
        return os.path.abspath(outcome.out).removeprefix(folder)

    def __str__(self) -> str:
        return "\n".join([self.head, *self.notes, str(self.table)])
