"""How predictions meet the recording, and what the mouth does in pauses, on the demo avatar.

    python -m tools.benchmarks.mouth [--frames 100] [--costs] [--out FOLDER]

Seams with each way of pasting: of the demo's own network, of one with a colour cast, and of one
whose picture is a little beside its place. Motion of the mouth in pauses. Asked for, what
compositing and the detectors cost. Writes a dated text, and prints it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

import lipsync_nb as lnb
from lipsync_nb.avatar.cache import Template
from lipsync_nb.experiments import seam_contrast, seam_of_clip
from lipsync_nb.experiments.environment import environment
from lipsync_nb.experiments.quality import demo_mouth_opening, mouth_of
from lipsync_nb.experiments.results import write_text
from lipsync_nb.network.inference import audio_encoder
from lipsync_nb.pipeline.blending import HARD, Blending
from lipsync_nb.pipeline.compositing import Scratch, composite_picture
from lipsync_nb.pipeline.row_sound import quiet_row
from lipsync_nb.pipeline.silence import Pauses
from lipsync_nb.types.arrays import FloatArray, ImageArray, IndexArray
from lipsync_nb.types.table import Column, Table

RESULTS = Path(__file__).parent / "results"
WAYS = {
    "hard": HARD,
    "hard, colour_match": Blending(is_matched=True),
    "feather": Blending(is_soft=True),
    "feather, colour_match": Blending(is_soft=True, is_matched=True),
}
# Blue, green, red; and how much more of it on the right than on the left.
CAST, SLOPE = (0.86, 0.95, 1.08), 0.03
# Of a cheek in the network's picture: no mouth moves there.
CHEEK = (slice(50, 90), slice(60, 100))
RATE, PAUSE_SECONDS, NOISE_DB = 16_000, 1.6, -45.0
CONFIG = lnb.RenderConfig(feature_files=False, provider="cpu")


def cast(pictures: ImageArray) -> ImageArray:
    """As a network would give them that was trained on other light."""
    across = 1 + SLOPE * np.linspace(-1, 1, pictures.shape[2], dtype=np.float32)[:, None]
    return np.clip(pictures * (np.array(CAST, np.float32) * across), 0, 255).astype(np.uint8)


def shifted(pictures: ImageArray) -> ImageArray:
    """3 px to the right and 2 px down: a box that jitters."""
    move = np.array([[1, 0, 3], [0, 1, 2]], np.float32)
    size, mode = pictures.shape[1:3], cv2.BORDER_REPLICATE
    moved = [cv2.warpAffine(picture, move, size[::-1], borderMode=mode) for picture in pictures]
    return np.stack(moved)


def predicted(avatar: lnb.Avatar, speech: lnb.Speech, config: lnb.RenderConfig) -> ImageArray:
    """The network's pictures of a speech, uint8 ``[n, 320, 320, 3]``."""
    stream = lnb.FrameStream(avatar, speech, config)
    return np.concatenate([part.images.copy() for part in stream.predictions()])


@dataclass(frozen=True)
class SeamRow:
    network: str
    way: str
    step: float
    contrast: float
    flicker: float


def seam_rows(template: Template, order: IndexArray, pictures: ImageArray) -> list[SeamRow]:
    """Of each network and way: the seam, and how a cheek's level changes from frame to frame."""
    networks = {"demo": pictures, "colour cast": cast(pictures), "beside": shifted(pictures)}
    rows = []
    for network, given in networks.items():
        for way, blending in WAYS.items():
            frames, levels = [], []
            for number, (index, picture) in enumerate(zip(order.tolist(), given, strict=True)):
                original, _ = template.canvas(index)
                levels.append(blending.recoloured(template, index, picture, original)[CHEEK])
                done = composite_picture(template, index, picture, blending=blending)
                frames.append(lnb.Frame(number, index, 0.0, done))
            seam = seam_of_clip(template, frames)
            rows.append(SeamRow(network, way, seam.step, seam.contrast, flicker_of(levels)))
    return rows


def flicker_of(cheeks: Sequence[ImageArray]) -> float:
    """How much the mean colour of a cheek changes from frame to frame, of 255."""
    means = np.stack(cheeks).mean(axis=(1, 2), dtype=np.float64)
    return float(np.abs(np.diff(means, axis=0)).mean())


def seam_table(rows: Sequence[SeamRow], recorded: float) -> Table:
    columns = [
        Column[SeamRow]("network", lambda row: row.network, True),
        Column[SeamRow]("paste", lambda row: row.way, True),
        Column[SeamRow]("step of 255", lambda row: f"{row.step:.2f}"),
        Column[SeamRow](f"of the recording's {recorded:.2f}", lambda row: f"{row.contrast:.2f}"),
        Column[SeamRow]("level a frame", lambda row: f"{row.flicker:.2f}"),
    ]
    return Table.of(columns, rows)


def paused_speech() -> tuple[lnb.Speech, FloatArray]:
    """Words with pauses around them in a room that is not quiet; and when they are voiced."""
    said = lnb.load_speech(lnb.demo_speeches()["hello"]).samples
    assert said is not None
    parts = [np.zeros(int(PAUSE_SECONDS * RATE), np.float32)]
    for start, end in ((0.0, 1.3), (3.0, 4.6)):
        parts += [said[int(start * RATE) : int(end * RATE)], parts[0]]
    clean = np.concatenate(parts)
    # It breathes: 1.3 times a second.
    breath = 0.6 + 0.4 * np.sin(2 * np.pi * 1.3 * np.arange(len(clean)) / RATE)
    noise = np.random.default_rng(0).normal(0, 10 ** (NOISE_DB / 20), len(clean)) * breath
    windows = clean[: len(clean) // 160 * 160].reshape(-1, 160)
    voiced = np.flatnonzero(np.sqrt((windows**2).mean(axis=1)) > 0.003) / 100
    return lnb.Speech(samples=(clean + noise).astype(np.float32)), voiced.astype(np.float32)


@dataclass(frozen=True)
class PauseRow:
    name: str
    opening: float
    pixels: float
    fade: float
    speech: float


def pause_rows(avatar: lnb.Avatar) -> list[PauseRow]:
    """Motion beyond half a second from speech, less that of a mouth which rests throughout.

    The fades' is the largest step of the mouth's pixels as they are seen, and so is the speech's.
    """
    speech, voiced = paused_speech()
    template = avatar.open_template("memory", "bgr", None, False)
    pictures = predicted(avatar, speech, CONFIG)
    assert avatar.audio_encoder is not None
    quiet = quiet_row(audio_encoder(avatar.audio_encoder, "cpu"))
    rest = predicted(avatar, lnb.Speech(features=np.tile(quiet, (len(pictures), 1))), CONFIG)
    still = predicted(avatar, speech, replace(CONFIG, silence="still"))
    order = lnb.FrameStream(avatar, speech, CONFIG).order
    roi = template.spec.roi
    recorded = np.stack([template.crop(index)[roi, roi] for index in order.tolist()])
    frames = np.arange(len(pictures)) / 25
    pauses = Pauses.of(speech, replace(CONFIG, silence="keep"))
    share = pauses.strengths(frames, frames + 1 / 25)[:, None, None, None]
    kept = np.round(recorded + share * (pictures.astype(np.float32) - recorded)).astype(np.uint8)
    nearest = np.abs(frames[:, None] - voiced).min(axis=1)[1:]
    rows = []
    for name, given, base in (
        ("paint", pictures, rest), ("still", still, rest), ("keep", kept, recorded),
    ):  # fmt: skip
        opening, pixels = _net_opening(given, base), _net_pixels(given, base)
        seen = _net_pixels(given, np.zeros_like(given))
        pause, spoken = nearest > 0.5, nearest < 0.04
        fade = ~pause & ~spoken
        found = opening[pause].mean(), pixels[pause].mean(), seen[fade].max(), seen[spoken].max()
        rows.append(PauseRow(name, *map(float, found)))
    return rows


def _net_opening(pictures: ImageArray, base: ImageArray) -> FloatArray:
    openings = [[demo_mouth_opening(picture) for picture in part] for part in (pictures, base)]
    return np.abs(np.diff(np.subtract(*openings)))


def _net_pixels(pictures: ImageArray, base: ImageArray) -> FloatArray:
    moved = mouth_of(pictures).astype(np.int16) - mouth_of(base)
    return np.asarray(np.abs(np.diff(moved, axis=0)).mean(axis=(1, 2, 3)), np.float32)


def pause_table(rows: Sequence[PauseRow]) -> Table:
    columns = [
        Column[PauseRow]("silence", lambda row: row.name, True),
        Column[PauseRow]("opening, px a frame", lambda row: f"{row.opening:.4f}"),
        Column[PauseRow]("pixels of 255 a frame", lambda row: f"{row.pixels:.4f}"),
        Column[PauseRow]("largest step in fades", lambda row: f"{row.fade:.2f}"),
        Column[PauseRow]("in speech", lambda row: f"{row.speech:.2f}"),
    ]
    return Table.of(columns, rows)


def compositing_ms(
    template: Template, order: IndexArray, pictures: ImageArray, blending: Blending
) -> float:
    """Of a frame, the least of five passes."""
    out, scratch = np.empty(template.picture_shape, np.uint8), Scratch(template)

    def composite() -> None:
        for index, picture in zip(order.tolist(), pictures, strict=True):
            composite_picture(template, index, picture, out, scratch, blending)

    return 1000 * _least(composite) / len(order)


def cost_lines(avatar: lnb.Avatar, pictures: ImageArray, order: IndexArray) -> list[str]:
    """Compositing a frame in each way and layout, and finding the pauses of half an hour."""
    lines = []
    for pixels in ("bgr", "i420"):
        template = avatar.open_template("memory", pixels, None, True)
        costs = [
            f"{way} {compositing_ms(template, order, pictures, blending):.2f}"
            for way, blending in WAYS.items()
        ]
        lines.append(f"compositing in {pixels}, ms a frame: {'; '.join(costs)}")
    said = paused_speech()[0].samples
    assert said is not None
    samples = np.tile(said, 300)[: 1800 * RATE]
    for detector in ("level", "silero"):
        config = replace(CONFIG, silence_detector=detector)
        start = time.perf_counter()
        pauses = Pauses.of(lnb.Speech(samples=samples), config)
        pauses.strengths(np.array([0.0]), np.array([0.04]))
        first = time.perf_counter() - start
        pauses.spans()
        whole = time.perf_counter() - start
        lines.append(f"half an hour by {detector}: first frame {first:.2f} s, whole {whole:.1f} s")
    return lines


def _least(call: Callable[[], None], repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measured(frames: int, with_costs: bool) -> str:
    """All of it as text."""
    cv2.setNumThreads(1)
    avatar = lnb.load_avatar("demo")
    speech = lnb.load_speech(lnb.demo_speeches()["hello"])
    stream = lnb.FrameStream(avatar, speech, replace(CONFIG, max_frames=frames))
    pictures = np.concatenate([part.images.copy() for part in stream.predictions()])
    template, order = stream.template, stream.order
    rows = seam_rows(template, order, pictures)
    own = [seam_contrast(template, i, template.canvas(i)[0]).recorded for i in order.tolist()]
    roi = template.spec.roi
    cheeks = [template.crop(index)[roi, roi][CHEEK] for index in order.tolist()]
    machine = ", ".join(f"{key} {value}" for key, value in environment().items())
    return "\n".join(
        [
            f"python -m tools.benchmarks.mouth --frames {frames}",
            "",
            str(seam_table(rows, float(np.mean(own)))),
            f"level a frame of the recording itself: {flicker_of(cheeks):.2f}",
            "",
            "motion in pauses, less that of a mouth at rest (keep: of the recording)",
            str(pause_table(pause_rows(avatar))),
            "",
            *(cost_lines(avatar, pictures[:50], order[:50]) if with_costs else ()),
            "",
            machine,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100, help="of each seam, default 100")
    parser.add_argument("--costs", action="store_true", help="on a machine that is idle")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the text")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    text, machine = measured(given.frames, given.costs), environment()
    name = f"{machine['date'].split()[0]}_{machine['cores']}-cores_mouth.txt"
    print(write_text(given.out / name, text + "\n").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
