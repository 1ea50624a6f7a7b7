"""The generator's audio branch, taught before the pictures to tell the mouth from the sound.

The mobile width's learns together with the audio encoder (`tools.demo_avatar.train_audio`). One of
another width learns here, from what the finished encoder hears.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from lipsync_nb.network.torch_networks import AudioModel
from lipsync_nb.types.arrays import FloatArray

from .tracks import Tracks
from .train_audio import CHANNELS, NUM_PARAMETERS, mouth_loss

LEARNING_RATE = 2e-3


class BranchReader(nn.Module):
    """Audio branch and head: audio ``[n, 32, 16, 16]`` to mouth parameters ``[n, 5, 10, 10]``.

    As the 1x1 head reads every position, the branch carries the mouth everywhere.
    """

    def __init__(self, width: str) -> None:
        super().__init__()
        self.audio_model = AudioModel(CHANNELS[width])
        self.head = nn.Conv2d(CHANNELS[width][4], NUM_PARAMETERS, 1)

    def forward(self, audio: torch.Tensor) -> torch.Tensor:
        return self.head(self.audio_model(audio))


def trained_reader(
    width: str, tracks: Tracks, mouths: list[FloatArray], minutes: float, batch_size: int
) -> BranchReader:
    """Train for so many minutes on random moments of the clips, whose mouths these are."""
    device = tracks.rows.device
    reader = BranchReader(width).to(device)
    optimiser = torch.optim.AdamW(reader.parameters(), LEARNING_RATE, weight_decay=0.01)
    start, steps, fraction = time.monotonic(), 0, 0.0
    for audio, truth in _moments(tracks, mouths, batch_size):
        fraction = min(1.0, (time.monotonic() - start) / (60 * minutes))
        scale = min(1.0, (steps + 1) / 25) * (0.02 + 0.49 * (1 + math.cos(math.pi * fraction)))
        optimiser.param_groups[0]["lr"] = LEARNING_RATE * scale
        with torch.autocast(device.type, torch.bfloat16):
            found = reader(audio).permute(0, 2, 3, 1)
        loss = mouth_loss(found, truth[:, None, None].expand_as(found))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimiser.step()
        steps += 1
        if fraction >= 1:
            break
    print(f"audio branch: {steps} steps, loss {loss.item():.4f}", flush=True)
    return reader.eval()


def _moments(
    tracks: Tracks, mouths: list[FloatArray], batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches: audio ``[n, 32, 16, 16]`` and the mouth ``[n, 5]`` of its frame."""
    rng = np.random.default_rng(0)
    device = tracks.rows.device
    truth = torch.from_numpy(np.concatenate(mouths)).to(device)
    ends = np.cumsum(tracks.lengths)
    while True:
        moments = rng.integers(ends[-1], size=batch_size)
        clips = np.searchsorted(ends, moments, side="right")
        frames = moments - (ends - tracks.lengths)[clips]
        versions = rng.integers(len(tracks.rows), size=batch_size)
        chosen = torch.from_numpy(moments).to(device, non_blocking=True)
        yield tracks.audio(clips, frames, versions), truth[chosen]
