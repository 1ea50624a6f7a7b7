"""What every predictor is made with: its share of the machine, and what is to be told."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.network.providers import CPU, first_provider

CPU_BATCH, GPU_BATCH = 1, 8


@dataclass(frozen=True)
class Share:
    """How the generator shares the processor: batches at the same time, frames of each."""

    streams: int
    batch_size: int

    @classmethod
    def of(cls, config: RenderConfig, streams: int) -> Share:
        """As configured, on the CPU with so many streams.

        A GPU shares itself out, and is quicker with several frames at once.
        """
        if first_provider(config.device) == CPU:
            return cls(streams, config.batch_size or CPU_BATCH)
        return cls(config.streams or 1, config.batch_size or GPU_BATCH)


@dataclass(frozen=True)
class Remarks:
    """What is to be told about how frames are predicted: see `Predictor`."""

    notes: tuple[str, ...] = ()
    shortfalls: tuple[str, ...] = ()

    def and_note(self, note: str) -> Remarks:
        """With one more note, where it says anything."""
        return replace(self, notes=(*self.notes, note)) if note else self

    def and_shortfall(self, text: str) -> Remarks:
        """With one more thing that could not be had."""
        return replace(self, shortfalls=(*self.shortfalls, text))

    def instead(self, note: str, missed: str, is_asked: bool) -> Remarks:
        """With a note of what came instead; where the other was asked for, it is a shortfall too.

        Args:
            missed: what was asked for, and what came.
        """
        remarks = self.and_shortfall(missed) if is_asked else self
        return remarks.and_note(note)
