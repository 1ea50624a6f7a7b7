"""Trains the demo avatar's generator on drawn truth.

    python -m tools.demo_avatar.train_generator --minutes 60 [--resume] [--width full]
    python -m tools.demo_avatar.train_generator --minutes 40 --resume --frozen-norms

The second call trains on with the BatchNorm statistics that inference will use: with batches of
eight, what a network learns on the statistics of its own batch shows a different mouth without.

The input is the template's own frame, as it is when the avatar speaks; the target is the same
pose drawn with the mouth of a random moment of a random training clip; the audio is the feature
window of that moment, from the frozen audio encoder.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lipsync_nb.avatar.loading import load_avatar
from lipsync_nb.media.imaging import resize
from lipsync_nb.network.torch_networks import FULL_CHANNELS, MOBILE_CHANNELS, UNet328
from lipsync_nb.pipeline.batches import audio_rows, visual_input
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import SYNCTALK_328 as SPEC
from lipsync_nb.types.records import Box

from .presenter import NUM_FRAMES, MouthState, draw_box, face_box, mouth_center, template_pose
from .template import DEMO_FOLDER
from .train_audio import (
    CHECKPOINT,
    TRAIN_FOLDER,
    augment,
    features_for,
    load_encoder,
    training_corpus,
)

WIDTHS = {"mobile": MOBILE_CHANNELS, "full": FULL_CHANNELS}
BANK_CHUNK = 250
MOUTH_HALF_WIDTH, MOUTH_ABOVE, MOUTH_BELOW = 80, 60, 100
MOUTH_WEIGHT = 8.0
# The mask's upper edge, where a seam would be seen.
TOP_ROWS, TOP_WEIGHT = 12, 4.0
EDGE_WEIGHT = 0.5
# The audio branch comes trained on far more moments than the bank holds.
AUDIO_LEARNING_RATE = 0.1


@dataclass(frozen=True)
class Moment:
    """One training example: the pose of a template frame, and a frame of a clip."""

    pose: int
    clip: int
    frame: int


def draw_target(pose_index: int, mouth: np.ndarray) -> ImageArray:
    """Drawn truth as the generator should paint it, uint8 ``[320, 320, 3]`` BGR."""
    pose = template_pose(pose_index)
    box = face_box(pose)
    drawn = draw_box(pose, MouthState.from_array(mouth), box)
    return resize(drawn, SPEC.crop_size, SPEC.crop_size, SPEC.interpolation)[SPEC.roi, SPEC.roi]


def mouth_region(pose_index: int) -> tuple[slice, slice]:
    """Rows and columns of the mouth in the generator's picture of a template frame."""
    pose = template_pose(pose_index)
    box = Box(*face_box(pose))
    x, y = mouth_center(pose)
    scale = SPEC.crop_size / box.width
    row = round((y - box.y1) * scale) - SPEC.margin
    column = round((x - box.x1) * scale) - SPEC.margin
    rows = slice(max(0, row - MOUTH_ABOVE), min(SPEC.input_size, row + MOUTH_BELOW))
    return rows, slice(column - MOUTH_HALF_WIDTH, column + MOUTH_HALF_WIDTH)


def _draw_chunk(job: tuple[list[Moment], list[np.ndarray]]) -> ImageArray:
    moments, mouths = job
    return np.stack([draw_target(m.pose, mouth) for m, mouth in zip(moments, mouths, strict=True)])


def draw_bank(folder: Path, size: int, seed: int = 0, workers: int = 1) -> None:
    """Draw targets of random moments into ``bank_NNN.npz`` files; those that exist are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = training_corpus()
    chunks = [n for n in range(size // BANK_CHUNK) if not _bank_file(folder, n).exists()]
    with ProcessPoolExecutor(workers) as pool:
        plans = [_plan(corpus, seed + n) for n in chunks]
        jobs = [(p, [corpus[m.clip].mouth[m.frame] for m in p]) for p in plans]
        for n, plan, images in zip(chunks, plans, pool.map(_draw_chunk, jobs), strict=True):
            moments = np.array([(m.pose, m.clip, m.frame) for m in plan], np.int32)
            partial = folder / f"partial_{n:03d}.npz"
            np.savez(partial, moments=moments, images=images)
            partial.replace(_bank_file(folder, n))


def _bank_file(folder: Path, number: int) -> Path:
    return folder / f"bank_{number:03d}.npz"


def _plan(corpus: list, seed: int) -> list[Moment]:
    rng = np.random.default_rng(seed)
    moments = []
    for _ in range(BANK_CHUNK):
        clip = int(rng.integers(len(corpus)))
        frame = int(rng.integers(len(corpus[clip].mouth)))
        moments.append(Moment(int(rng.integers(NUM_FRAMES)), clip, frame))
    return moments


class Bank:
    """Training examples in RAM; chunks that are drawn meanwhile are taken up by `refresh`."""

    def __init__(self, folder: Path, tracks: list[list[FloatArray]]) -> None:
        self.folder, self.tracks = folder, tracks
        template = load_avatar(DEMO_FOLDER).template
        self.visuals = [visual_input(template.crop(i), SPEC) for i in range(len(template))]
        self.weights = np.ones((NUM_FRAMES, 1, SPEC.input_size, SPEC.input_size), np.float32)
        for index in range(NUM_FRAMES):
            rows, columns = mouth_region(index)
            self.weights[index, 0, :TOP_ROWS] = TOP_WEIGHT
            self.weights[index, 0, rows, columns] = MOUTH_WEIGHT
        self.moments = np.zeros((0, 3), np.int32)
        self.images: list[ImageArray] = []
        self._seen: set[Path] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read the chunks that appeared since the last time."""
        for file in sorted(set(self.folder.glob("bank_*.npz")) - self._seen):
            with np.load(file) as chunk:
                self.moments = np.concatenate([self.moments, chunk["moments"]])
                self.images.extend(chunk["images"])
            self._seen.add(file)

    def batches(self, batch_size: int, seed: int) -> Iterator[tuple[torch.Tensor, ...]]:
        """Endless shuffled batches: visual, audio, target, weight (NCHW float32)."""
        rng = np.random.default_rng(seed)
        while True:
            self.refresh()
            order = rng.permutation(len(self.images))
            for start in range(0, len(order) - batch_size + 1, batch_size):
                yield self._batch(order[start : start + batch_size], rng)

    def _batch(self, chosen: np.ndarray, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        poses, clips, frames = self.moments[chosen].T
        versions = [self.tracks[c][rng.integers(len(self.tracks[c]))] for c in clips]
        audio = [audio_rows(t, int(f), SPEC) for t, f in zip(versions, frames, strict=True)]
        target = np.stack([self.images[i] for i in chosen]).transpose(0, 3, 1, 2)
        return (
            torch.from_numpy(np.stack([self.visuals[p] for p in poses])),
            torch.from_numpy(np.stack(audio)),
            torch.from_numpy(target.astype(np.float32) / 255),
            torch.from_numpy(self.weights[poses]),
        )


def picture_loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted L1 of the pixels and of their differences to the neighbours (sharp edges)."""
    error = output - target
    loss = (weight * error.abs()).mean()
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weight[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return loss + EDGE_WEIGHT * (across.mean() + down.mean())


class Trainer:
    """The generator with its optimiser, averaged weights and checkpoint file."""

    def __init__(self, width: str, learning_rate: float) -> None:
        self.file = TRAIN_FOLDER / f"generator_{width}.pt"
        self.model = UNet328(WIDTHS[width]).to(memory_format=torch.channels_last)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995),
            use_buffers=True,
        )  # fmt: skip
        self.learning_rate = learning_rate
        part = AUDIO_LEARNING_RATE if width == "mobile" else 1.0
        self.optimiser = torch.optim.AdamW(self._groups(part), lr=learning_rate)
        self.samples = 0
        self.fraction = 0.0

    def _groups(self, audio_part: float) -> list[dict[str, object]]:
        audio = list(self.model.audio_model.parameters())
        known = {id(parameter) for parameter in audio}
        rest = [p for p in self.model.parameters() if id(p) not in known]
        return [{"params": audio, "part": audio_part}, {"params": rest, "part": 1.0}]

    def start_from(self, audio_model: dict[str, torch.Tensor]) -> None:
        """Take over the audio branch that was trained with the audio encoder."""
        self.model.audio_model.load_state_dict(audio_model)
        self.average.module.audio_model.load_state_dict(audio_model)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "samples": self.samples,
        }
        partial = self.file.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.file)

    def resume(self) -> None:
        state = torch.load(self.file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.samples = state["samples"]

    def step(self, batch: tuple[torch.Tensor, ...], fraction: float) -> float:
        """One step at this fraction (0..1) of the whole training; returns the loss."""
        visual, audio, target, weight = batch
        visual = visual.to(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * group["part"] * _schedule(fraction)
        with torch.autocast("cpu", torch.bfloat16):
            output = self.model(visual, audio)
        loss = picture_loss(output.float(), target, weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.samples += len(visual)
        return float(loss.detach())

    def freeze_norms(self) -> None:
        """Go on from the averaged weights with fixed BatchNorm statistics, a new optimiser."""
        self.model.load_state_dict(self.average.module.state_dict())
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        part = self.optimiser.param_groups[0]["part"]
        self.optimiser = torch.optim.AdamW(self._groups(part), lr=self.learning_rate)

    def settle_norms(self, bank: Bank, batch_size: int, batches: int = 60) -> None:
        """Measure the BatchNorm statistics of the averaged weights, which no step has used."""
        seen = ((v, a) for v, a, _, _ in islice(bank.batches(batch_size, seed=1), batches))
        norms = [m for m in self.average.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.average.train()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for visual, audio in seen:
                self.average(visual.to(memory_format=torch.channels_last), audio)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.average.eval()


def _schedule(fraction: float) -> float:
    warm_up = min(1.0, fraction / 0.02 + 0.05)
    return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))))


def mouth_psnr(model: nn.Module, bank: Bank, count: int = 32) -> float:
    """PSNR in dB of the mouth regions of the first examples of the bank."""
    model.eval()
    squares, pixels = 0.0, 0
    for start in range(0, count, 8):
        visual, audio, target, weight = bank._batch(
            np.arange(start, start + 8), np.random.default_rng(0)
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            output = model(visual, audio).float()
        mask = (weight == MOUTH_WEIGHT).expand_as(output)
        squares += float(functional.mse_loss(output[mask], target[mask], reduction="sum"))
        pixels += int(mask.sum())
    model.train()
    return 10 * math.log10(pixels / squares)


def encoded(corpus: list, encoder: nn.Module) -> list[list[FloatArray]]:
    """Feature tracks of each clip as it is and with noise; kept beside the encoder's weights."""
    file = TRAIN_FOLDER / "tracks.pt"
    if not file.exists() or file.stat().st_mtime < CHECKPOINT.stat().st_mtime:
        print(f"encoding {len(corpus)} clips", flush=True)
        rng = np.random.default_rng(0)
        kinds = [
            [features_for(samples, encoder) for samples in (c.samples, augment(c.samples, rng))]
            for c in corpus
        ]
        torch.save([[torch.from_numpy(track) for track in kind] for kind in kinds], file)
    return [[track.numpy() for track in kind] for kind in torch.load(file, weights_only=True)]


def train(
    width: str,
    minutes: float,
    batch_size: int,
    learning_rate: float,
    resume: bool,
    frozen_norms: bool,
) -> None:
    """Train for so many minutes (0: only settle the norms); a checkpoint every two minutes."""
    encoder, audio_model = load_encoder()
    corpus = training_corpus()
    tracks = encoded(corpus, encoder)
    bank = Bank(TRAIN_FOLDER / "bank", tracks)
    trainer = Trainer(width, learning_rate)
    if resume:
        trainer.resume()
    elif width == "mobile":
        trainer.start_from(audio_model)
    if minutes <= 0:
        finish(trainer, bank, batch_size)
        return
    if frozen_norms:
        trainer.freeze_norms()
    start = last = time.monotonic()
    losses: list[float] = []
    for batch in bank.batches(batch_size, seed=trainer.samples):
        fraction = (time.monotonic() - start) / (60 * minutes)
        losses.append(trainer.step(batch, fraction))
        if time.monotonic() - last > 120 or fraction >= 1:
            trainer.save()
            psnr = mouth_psnr(trainer.average, bank)
            print(
                f"{fraction:6.1%} samples {trainer.samples} bank {len(bank.images)} "
                f"loss {np.mean(losses):.4f} mouth PSNR {psnr:.2f} dB",
                flush=True,
            )
            losses, last = [], time.monotonic()
        if fraction >= 1:
            if not frozen_norms:
                finish(trainer, bank, batch_size)
            return


def finish(trainer: Trainer, bank: Bank, batch_size: int) -> None:
    """Settle the averaged weights' norms and save them."""
    trainer.settle_norms(bank, batch_size)
    trainer.save()
    print(f"settled: mouth PSNR {mouth_psnr(trainer.average, bank):.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--width", choices=WIDTHS, default="mobile")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--frozen-norms", action="store_true", help="fixed BatchNorm statistics")
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="only draw a bank of N")
    options = parser.parse_args()
    if options.draw:
        draw_bank(TRAIN_FOLDER / "bank", options.draw)
        return
    train(
        options.width,
        options.minutes,
        options.batch_size,
        options.learning_rate,
        options.resume,
        options.frozen_norms,
    )


if __name__ == "__main__":
    main()
