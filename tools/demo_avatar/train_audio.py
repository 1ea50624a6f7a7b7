"""Trains the audio encoder together with the generator's audio branch.

    python -m tools.demo_avatar.train_audio --minutes 25 [--resume]

A 1x1 head reads the mouth from every position of the audio branch's output, so that the branch
carries it everywhere; the generator's training then starts from this branch. A linear head on
each feature row, whose window is centred on the frame after the row's own, teaches the encoder
directly.
"""

from __future__ import annotations

import argparse
import math
import queue
import threading
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from lipsync_nb.network.torch_networks import (
    FULL_CHANNELS,
    MOBILE_CHANNELS,
    AudioEncoder,
    AudioModel,
)
from lipsync_nb.pipeline.audio_features import (
    feature_track,
    load_speech,
    mel_spectrogram,
    mel_windows,
)
from lipsync_nb.pipeline.batches import audio_rows
from lipsync_nb.types.records import FEATURE_SIZE
from lipsync_nb.types.records import SYNCTALK_328 as SPEC

from .augmentation import augment, change_speed, with_pauses
from .synthesis import (
    HELD_OUT_SENTENCES,
    HELD_OUT_VOICE,
    TRAIN_FOLDER,
    CorpusClip,
    load_corpus,
    synthesise,
)

CHECKPOINT = TRAIN_FOLDER / "audio.pt"
SEGMENT_FRAMES, FRAME_STRIDE = 48, 2
CONTEXT = SPEC.rows_before + SPEC.rows_after
PARAMETER_WEIGHTS = (4.0, 1.5, 1.5, 1.0, 1.0)
NUM_PARAMETERS = 5
CHANNELS = {"mobile": MOBILE_CHANNELS, "full": FULL_CHANNELS}
FloatArray = NDArray[np.float32]


def training_corpus() -> list[CorpusClip]:
    """The training clips.

    Raises:
        FileNotFoundError: they have not been made yet.
    """
    corpus = load_corpus()
    if not corpus:
        raise FileNotFoundError("no corpus: run python -m tools.demo_avatar.synthesis first")
    return corpus


class MouthReader(nn.Module):
    """Encoder, audio branch and head: windows to mouth parameters, trained together."""

    def __init__(self, width: str = "mobile") -> None:
        super().__init__()
        channels = CHANNELS[width]
        self.encoder = AudioEncoder()
        self.audio_model = AudioModel(channels)
        self.head = nn.Conv2d(channels[4], NUM_PARAMETERS, 1)
        self.row_head = nn.Linear(FEATURE_SIZE, NUM_PARAMETERS)

    def forward(
        self, windows: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The mouth of every second frame at every position, and of every row.

        Windows ``[B, T + 15, 1, 80, 16]`` and mask ``[B, T + 15]`` to ``[B * T / 2, 5, 10, 10]``
        and ``[B, T + 15, 5]``.
        """
        batch, rows = mask.shape
        flat = windows.flatten(0, 1).to(memory_format=torch.channels_last)
        features = self.encoder(flat).view(batch, rows, -1) * mask[..., None]
        stacked = features.unfold(1, CONTEXT, FRAME_STRIDE).permute(0, 1, 3, 2)
        audio = stacked.reshape(-1, *SPEC.audio_shape).to(memory_format=torch.channels_last)
        return self.head(self.audio_model(audio)), self.row_head(features)


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of a clip.

    Attributes:
        windows: ``[T + 15, 1, 80, 16]``.
        mask: ``[T + 15]``, 0 for rows outside the clip.
        mouth: ``[T / 2, 5]``, of every second frame.
        row_mouth: ``[T + 15, 5]``, of the frame that each row's window is centred on.
    """

    windows: FloatArray
    mask: FloatArray
    mouth: FloatArray
    row_mouth: FloatArray


def varied(clip: CorpusClip, rng: np.random.Generator) -> CorpusClip:
    """The clip at another speed, with silence before and after it."""
    samples, speed = change_speed(clip.samples, rng)
    samples, track = with_pauses(samples, sample_times(clip.track, speed), rng)
    return CorpusClip(samples, track, clip.voice, clip.text)


def random_segment(clip: CorpusClip, rng: np.random.Generator) -> Segment:
    """A stretch of an augmented clip, starts and ends of clips included."""
    clip = varied(clip, rng)
    windows = mel_windows(mel_spectrogram(augment(clip.samples, rng)))
    mouth = clip.mouth
    frames = len(mouth)
    first = int(rng.integers(0, max(1, frames - SEGMENT_FRAMES + 1)))
    rows = np.arange(first - SPEC.rows_before, first + SEGMENT_FRAMES + SPEC.rows_after - 1)
    mask = ((rows >= 0) & (rows < frames)).astype(np.float32)
    chosen = windows[np.clip(rows - 1, 0, len(windows) - 1)]
    indices = np.clip(np.arange(first, first + SEGMENT_FRAMES, FRAME_STRIDE), 0, frames - 1)
    row_mouth = mouth[np.clip(rows + 1, 0, frames - 1)]
    return Segment(chosen, mask, mouth[indices], row_mouth)


def sample_times(track: FloatArray, speed: float) -> FloatArray:
    """A mouth track at 1000 points a second, played at another speed."""
    times = np.arange(int(len(track) / speed)) * speed
    return track[np.minimum(times.astype(int), len(track) - 1)]


class SegmentQueue:
    """Batches of segments, made in a thread while the network trains."""

    def __init__(self, corpus: list[CorpusClip], batch_size: int, seed: int) -> None:
        self._corpus, self._batch_size = corpus, batch_size
        self._rng = np.random.default_rng(seed)
        self._queue: queue.Queue[tuple[torch.Tensor, ...]] = queue.Queue(4)
        threading.Thread(target=self._fill, daemon=True).start()

    def _fill(self) -> None:
        while True:
            clips = self._rng.integers(len(self._corpus), size=self._batch_size)
            parts = [random_segment(self._corpus[c], self._rng) for c in clips]
            names = [field.name for field in fields(Segment)]
            stacks = [np.stack([getattr(part, name) for part in parts]) for name in names]
            self._queue.put(tuple(torch.from_numpy(stack) for stack in stacks))

    def get(self) -> tuple[torch.Tensor, ...]:
        """The fields of `Segment` of the next batch, stacked."""
        return self._queue.get()


def features_for(samples: FloatArray, encoder: AudioEncoder) -> FloatArray:
    """Feature track float32 ``[frames, 512]`` of a speech, from the encoder in evaluation mode."""

    def encode(windows: FloatArray) -> FloatArray:
        with torch.no_grad():
            return encoder(torch.from_numpy(windows)).numpy()

    return feature_track(mel_windows(mel_spectrogram(samples)), encode)


def read_mouth(model: MouthReader, samples: FloatArray) -> FloatArray:
    """Mouth parameters that the model hears, float32 ``[frames, 5]``."""
    track = features_for(samples, model.encoder)
    audio = np.stack([audio_rows(track, i, SPEC) for i in range(len(track))])
    with torch.no_grad():
        return model.head(model.audio_model(torch.from_numpy(audio))).mean(dim=(2, 3)).numpy()


def read_rows(model: MouthReader, samples: FloatArray) -> FloatArray:
    """Mouth parameters that the linear head hears in each feature row, float32 ``[frames, 5]``."""
    with torch.no_grad():
        return model.row_head(torch.from_numpy(features_for(samples, model.encoder))).numpy()


def report(model: MouthReader, real: Path | None) -> str:
    """Pearson r on the held-out voice and sentences, and the opening in a real speech."""
    model.eval()
    clips = [synthesise(text, HELD_OUT_VOICE, 160, 50) for text in HELD_OUT_SENTENCES[:6]]
    truth = np.concatenate([clip.mouth for clip in clips])
    heard = np.concatenate([read_mouth(model, clip.samples) for clip in clips])
    rows = np.concatenate([read_rows(model, clip.samples) for clip in clips])
    scores = [np.corrcoef(heard[:, k], truth[:, k])[0, 1] for k in range(NUM_PARAMETERS)]
    lags = {n: np.corrcoef(np.roll(heard[:, 0], -n), truth[:, 0])[0, 1] for n in range(-4, 5)}
    parts = [
        f"rows r {np.corrcoef(rows[:-1, 0], truth[1:, 0])[0, 1]:.3f}",
        "held-out r " + " ".join(f"{score:.3f}" for score in scores),
        f"lag {max(lags, key=lambda n: lags[n])}",
        f"mean opening {heard[:, 0].mean():.3f}/{truth[:, 0].mean():.3f}",
    ]
    if real is not None:
        parts.append(_report_real(model, real))
    model.train()
    return ", ".join(parts)


def _report_real(model: MouthReader, path: Path) -> str:
    """The opening in the pauses and in the speech of a recording's first 20 seconds."""
    samples = load_speech(path).samples[: 16_000 * 20]
    opening = read_mouth(model, samples)[:, 0]
    power = (samples[: len(samples) // 640 * 640].reshape(-1, 640) ** 2).mean(axis=1)
    loudness = 10 * np.log10(power / power.max() + 1e-9)[: len(opening)]
    opening = opening[: len(loudness)]
    pauses, speech = opening[loudness < -35].mean(), opening[loudness > -20].mean()
    return f"real: pauses {pauses:.3f} speech {speech:.3f}"


def mouth_loss(found: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Smooth L1 of mouth parameters ``[..., 5]``, weighted by how much each one shows."""
    errors = functional.smooth_l1_loss(found.float(), truth, beta=0.1, reduction="none")
    weights = torch.tensor(PARAMETER_WEIGHTS, device=errors.device)
    return (errors.flatten(0, -2).mean(dim=0) * weights).sum()


class Trainer:
    """The model with its averaged weights, optimiser and checkpoint."""

    def __init__(self, width: str, learning_rate: float) -> None:
        self.model = MouthReader(width).to(memory_format=torch.channels_last)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99),
            use_buffers=True,
        )
        self.learning_rate = learning_rate
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=learning_rate, weight_decay=0.01
        )
        self.steps = 0

    def step(self, batch: tuple[torch.Tensor, ...], fraction: float) -> float:
        windows, mask, mouth, row_mouth = batch
        scale = min(1.0, (self.steps + 1) / 25) * (0.02 + 0.49 * (1 + math.cos(math.pi * fraction)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * scale
        with torch.autocast("cpu", torch.bfloat16):
            output, rows = self.model(windows, mask)
        target = mouth.flatten(0, 1)[..., None, None].expand_as(output)
        loss = mouth_loss(output.permute(0, 2, 3, 1), target.permute(0, 2, 3, 1))
        loss = loss + mouth_loss(rows[mask > 0], row_mouth[mask > 0])
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.steps += 1
        return float(loss.detach())

    def save(self) -> None:
        parts = {"model": self.model, "average": self.average, "optimiser": self.optimiser}
        state = {name: part.state_dict() for name, part in parts.items()}
        partial = CHECKPOINT.with_suffix(".partial")
        torch.save({**state, "steps": self.steps}, partial)
        partial.replace(CHECKPOINT)

    def resume(self) -> None:
        state = torch.load(CHECKPOINT, weights_only=True)
        for name, part in (
            ("model", self.model), ("average", self.average), ("optimiser", self.optimiser)
        ):  # fmt: skip
            part.load_state_dict(state[name])
        self.steps = state["steps"]


def load_reader(width: str = "mobile") -> MouthReader:
    """The trained model with its averaged weights, in evaluation mode."""
    average = torch.load(CHECKPOINT, weights_only=True)["average"]
    model = MouthReader(width)
    prefix = "module."
    model.load_state_dict({k[len(prefix) :]: v for k, v in average.items() if k.startswith(prefix)})
    return model.eval()


def load_encoder() -> tuple[AudioEncoder, dict[str, torch.Tensor]]:
    """The trained audio encoder, and the state of the audio branch trained with it."""
    reader = load_reader()
    return reader.encoder, reader.audio_model.state_dict()


def train(minutes: float, batch_size: int, learning_rate: float, resume: bool, real: Path) -> None:
    """Train for so many minutes; a checkpoint and a report every two minutes."""
    TRAIN_FOLDER.mkdir(exist_ok=True)
    segments = SegmentQueue(training_corpus(), batch_size, seed=int(time.time()))
    trainer = Trainer("mobile", learning_rate)
    if resume:
        trainer.resume()
    start = last = time.monotonic()
    losses: list[float] = []
    while True:
        fraction = min(1.0, (time.monotonic() - start) / (60 * minutes))
        losses.append(trainer.step(segments.get(), fraction))
        if time.monotonic() - last > 120 or fraction >= 1:
            trainer.save()
            print(
                f"{fraction:6.1%} step {trainer.steps} loss {np.mean(losses):.4f} "
                f"{report(trainer.average.module, real)}",
                flush=True,
            )
            losses, last = [], time.monotonic()
        if fraction >= 1:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--batch-size", type=int, default=6)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--real", type=Path, help="a recording to report on as well")
    options = parser.parse_args()
    train(options.minutes, options.batch_size, options.learning_rate, options.resume, options.real)


if __name__ == "__main__":
    main()
