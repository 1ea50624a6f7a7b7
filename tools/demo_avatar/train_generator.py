"""Trains the demo avatar's generator on drawn truth.

    python -m tools.demo_avatar.train_generator --draw 6000
    python -m tools.demo_avatar.train_generator --minutes 60 [--resume] [--width full]
    python -m tools.demo_avatar.train_generator --minutes 40 --resume --frozen-norms
    python -m tools.demo_avatar.train_generator --minutes 10 --from-kept --frozen-norms

The third and the fourth call train on with the BatchNorm statistics that inference will use: with
small batches, what a network learns on the statistics of its own batch shows a different mouth
without. The third goes on from the checkpoint, the fourth from the network in ``data/demo/models``.

The input is the template's own frame, as it is when the avatar speaks; the target is the same
pose drawn with the mouth of a random moment of a random training clip; the audio is the feature
window of that moment, from the frozen audio encoder.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from lipsync_nb.network.torch_networks import AudioEncoder, UNet328

from .audio_branch import trained_reader
from .bank import MOUTH_WEIGHT, Bank, Batch, draw_bank
from .kept_networks import load_kept
from .synthesis import TRAIN_FOLDER
from .template import DEMO_FOLDER
from .tracks import encoded, training_clips
from .train_audio import CHANNELS, CHECKPOINT, load_encoder

WIDTHS = CHANNELS
EDGE_WEIGHT = 0.5
# The audio branch comes trained on far more moments than the bank holds.
AUDIO_LEARNING_RATE = 0.1
# For an audio branch that was not trained with the encoder: this part of the minutes, and so many
# times the moments of a step.
BRANCH_PART, BRANCH_MOMENTS = 0.06, 8
REPORT_SECONDS = 120.0
KEPT_ENCODER = DEMO_FOLDER / "models" / "audio_encoder.onnx"
KEPT_GENERATORS = {"mobile": "generator.onnx", "full": "generator_full.onnx"}
BATCH_SIZES = {"cpu": 8, "cuda": 64}


def picture_loss(output: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weighted L1 of the pixels and of their differences to the neighbours (sharp edges)."""
    error = output - target
    loss = (weight * error.abs()).mean()
    across = (error[..., :, 1:] - error[..., :, :-1]).abs() * weight[..., :, 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return loss + EDGE_WEIGHT * (across.mean() + down.mean())


def kept_generator(width: str) -> Path:
    """The file of the demo avatar's network of this width."""
    return DEMO_FOLDER / "models" / KEPT_GENERATORS[width]


class Trainer:
    """The generator with its optimiser, averaged weights and checkpoint file."""

    def __init__(self, width: str, learning_rate: float, device: torch.device) -> None:
        self.width, self.file = width, TRAIN_FOLDER / f"generator_{width}.pt"
        self.device = device
        self.model = UNet328(WIDTHS[width]).to(device, memory_format=torch.channels_last)
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995),
            use_buffers=True,
        )  # fmt: skip
        self.learning_rate = learning_rate
        self.optimiser = self._new_optimiser()
        self.samples = 0

    def _new_optimiser(self) -> torch.optim.AdamW:
        audio = list(self.model.audio_model.parameters())
        known = {id(parameter) for parameter in audio}
        rest = [p for p in self.model.parameters() if id(p) not in known]
        groups = [
            {"params": audio, "part": AUDIO_LEARNING_RATE},
            {"params": rest, "part": 1.0},
        ]
        return torch.optim.AdamW(groups, lr=self.learning_rate)

    def start_from(self, audio_model: dict[str, torch.Tensor]) -> None:
        """Take over an audio branch that was trained before."""
        self.model.audio_model.load_state_dict(audio_model)
        self.average.module.audio_model.load_state_dict(audio_model)

    def start_from_kept(self) -> None:
        """Go on from the weights in ``data/demo/models``; only with frozen norms."""
        load_kept(self.model, kept_generator(self.width))
        self.average.module.load_state_dict(self.model.state_dict())

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
        state = torch.load(self.file, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.samples = state["samples"]

    def step(self, batch: Batch, fraction: float) -> torch.Tensor:
        """One step at this fraction (0..1) of the whole training; returns the loss.

        The loss stays on the device: who reads it waits for the step.
        """
        visual, audio, target, weight = batch
        visual = visual.to(memory_format=torch.channels_last)
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * group["part"] * _schedule(fraction)
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self.model(visual, audio)
        loss = picture_loss(output.float(), target, weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.model)
        self.samples += len(visual)
        return loss.detach()

    def freeze_norms(self) -> None:
        """Go on from the averaged weights with fixed BatchNorm statistics, a new optimiser."""
        self.model.load_state_dict(self.average.module.state_dict())
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        self.optimiser = self._new_optimiser()

    def settle_norms(self, bank: Bank, batch_size: int, batches: int = 60) -> None:
        """Measure the BatchNorm statistics of the averaged weights, which no step has used."""
        seen = ((v, a) for v, a, _, _ in islice(bank.batches(batch_size, seed=1), batches))
        norms = [m for m in self.average.modules() if isinstance(m, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.average.train()
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16):
            for visual, audio in seen:
                self.average(visual.to(memory_format=torch.channels_last), audio)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.average.eval()


def _schedule(fraction: float) -> float:
    warm_up = min(1.0, fraction / 0.02 + 0.05)
    return warm_up * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, fraction))))


def mouth_psnr(model: nn.Module, bank: Bank, batch_size: int) -> float:
    """PSNR in dB of the mouth regions of the bank's first examples, 32 or a batch.

    In batches as they are in training: cuDNN takes seconds to prepare for another size.
    """
    model.eval()
    squares, pixels = 0.0, 0
    for start in range(0, min(32, len(bank) - batch_size + 1), batch_size):
        visual, audio, target, weight = bank.batch(
            np.arange(start, start + batch_size), np.random.default_rng(0)
        )
        with torch.no_grad(), torch.autocast(bank.device.type, torch.bfloat16):
            output = model(visual, audio).float()
        mask = (weight == MOUTH_WEIGHT).expand_as(output)
        squares += float(functional.mse_loss(output[mask], target[mask], reduction="sum"))
        pixels += int(mask.sum())
    model.train()
    return 10 * math.log10(pixels / squares)


def run_steps(
    trainer: Trainer,
    bank: Bank,
    minutes: float,
    batch_size: int,
    report: Callable[[float, float], None],
    report_seconds: float = REPORT_SECONDS,
) -> None:
    """Train for so many minutes; ``report(fraction, mean loss)`` is called now and then."""
    start = last = time.monotonic()
    losses: list[torch.Tensor] = []
    for batch in bank.batches(batch_size, seed=trainer.samples):
        fraction = (time.monotonic() - start) / (60 * minutes)
        losses.append(trainer.step(batch, fraction))
        if time.monotonic() - last > report_seconds or fraction >= 1:
            report(fraction, float(torch.stack(losses).mean()))
            losses, last = [], time.monotonic()
        if fraction >= 1:
            return


@dataclass(frozen=True)
class Plan:
    """What is trained, where and how long; see the options of the program."""

    width: str
    minutes: float
    batch_size: int
    learning_rate: float
    device: torch.device
    resume: bool
    from_kept: bool
    frozen_norms: bool
    versions: int
    workers: int


def frozen_encoder() -> tuple[AudioEncoder, dict[str, torch.Tensor] | None, Path]:
    """The audio encoder, the audio branch trained with it, and the encoder's file.

    Without a checkpoint of `tools.demo_avatar.train_audio` it is the demo avatar's own encoder,
    which brings no branch.
    """
    if CHECKPOINT.exists():
        return *load_encoder(), CHECKPOINT
    encoder = AudioEncoder()
    load_kept(encoder, KEPT_ENCODER)
    return encoder.eval(), None, KEPT_ENCODER


def train(plan: Plan) -> None:
    """Train as planned (0 minutes: only settle the norms); a checkpoint every two minutes."""
    encoder, branch, file = frozen_encoder()
    clips = training_clips()
    tracks = encoded(clips, encoder, plan.device, plan.versions, plan.workers, file)
    bank = Bank(TRAIN_FOLDER / "bank", tracks)
    bank.refresh()
    if len(bank) < plan.batch_size:
        raise FileNotFoundError(f"found {len(bank)} pictures, expected more: --draw draws them.")
    bank.watch()
    trainer = Trainer(plan.width, plan.learning_rate, plan.device)
    if plan.resume:
        trainer.resume()
    elif plan.from_kept:
        trainer.start_from_kept()
    elif plan.minutes > 0:
        if branch is None or plan.width != "mobile":
            mouths, minutes = [clip.mouth for clip in clips], BRANCH_PART * plan.minutes
            moments = BRANCH_MOMENTS * plan.batch_size
            reader = trained_reader(plan.width, tracks, mouths, minutes, moments)
            branch = reader.audio_model.state_dict()
        trainer.start_from(branch)
    if plan.minutes <= 0:
        finish(trainer, bank, plan.batch_size)
        return
    if plan.frozen_norms:
        trainer.freeze_norms()

    def report(fraction: float, loss: float) -> None:
        trainer.save()
        psnr = mouth_psnr(trainer.average, bank, plan.batch_size)
        print(
            f"{fraction:6.1%} samples {trainer.samples} bank {len(bank)} "
            f"loss {loss:.4f} mouth PSNR {psnr:.2f} dB",
            flush=True,
        )

    run_steps(trainer, bank, plan.minutes, plan.batch_size, report)
    if not plan.frozen_norms:
        finish(trainer, bank, plan.batch_size)


def finish(trainer: Trainer, bank: Bank, batch_size: int) -> None:
    """Settle the averaged weights' norms and save them."""
    trainer.settle_norms(bank, batch_size)
    trainer.save()
    psnr = mouth_psnr(trainer.average, bank, batch_size)
    print(f"settled: mouth PSNR {psnr:.2f} dB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--width", choices=WIDTHS, default="mobile")
    parser.add_argument("--device", choices=BATCH_SIZES, help="default: cuda where it is, else cpu")
    parser.add_argument("--batch-size", type=int, help="default: 8 on a CPU, 64 on a GPU")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--from-kept", action="store_true",
                        help="from data/demo/models; with --frozen-norms")  # fmt: skip
    parser.add_argument("--frozen-norms", action="store_true", help="fixed BatchNorm statistics")
    parser.add_argument("--draw", type=int, default=0, metavar="N", help="only draw a bank of N")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1,
                        help="processes that draw and prepare sounds")  # fmt: skip
    parser.add_argument("--versions", type=int, default=2,
                        help="of each clip's sound: itself, and other recordings")  # fmt: skip
    options = parser.parse_args()
    if options.from_kept and not options.frozen_norms:
        parser.error("--from-kept needs --frozen-norms: the kept network has no statistics.")
    if options.draw:
        draw_bank(TRAIN_FOLDER / "bank", options.draw, workers=options.workers)
        return
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    train(
        Plan(
            width=options.width,
            minutes=options.minutes,
            batch_size=options.batch_size or BATCH_SIZES[device],
            learning_rate=options.learning_rate,
            device=torch.device(device),
            resume=options.resume,
            from_kept=options.from_kept,
            frozen_norms=options.frozen_norms,
            versions=options.versions,
            workers=options.workers,
        )
    )


if __name__ == "__main__":
    main()
