"""Measures the demo avatar on sentences and a voice that training never heard.

    python -m tools.demo_avatar.evaluate [--real SPEECH.wav] [--sheet FOLDER] [--compare int8]
        [--generator FILE.onnx]

For every held-out sentence it renders the frames with the package, measures the mouth opening from
their pixels, and compares it with the truth (Pearson r and best lag), and the mouth region with
the drawn truth (PSNR). For a real speech it compares the opening in pauses and in speech.
``--compare`` measures another precision against FP32: the PSNR of the mouth region between the two,
and how much r loses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from lipsync_nb import Avatar, Frame, Speech, iter_frames, load_avatar, load_speech
from lipsync_nb.avatar.cache import crop_face
from lipsync_nb.config.render_config import RenderConfig
from lipsync_nb.experiments.quality import demo_mouth_opening, pearson
from lipsync_nb.media.imaging import write_image
from lipsync_nb.types.arrays import FloatArray, ImageArray
from lipsync_nb.types.records import SAMPLE_RATE, Box
from lipsync_nb.types.records import SYNCTALK_328 as SPEC

from .bank import draw_target, mouth_region
from .synthesis import HELD_OUT_SENTENCES, HELD_OUT_VOICE, synthesise

MAX_LAG = 5
PAUSE_DB, SPEECH_DB = -35.0, -20.0


def roi_of(image: ImageArray, box: Box) -> ImageArray:
    """What the generator paints of a full frame, uint8 ``[320, 320, 3]`` BGR."""
    return crop_face(image, box, SPEC.crop_size, SPEC.interpolation)[SPEC.roi, SPEC.roi]


def best_lag(shown: np.ndarray, truth: np.ndarray) -> int:
    """Frames by which the shown opening is late (positive) or early, at the highest r."""
    n = len(truth)
    scores = {
        lag: pearson(shown[max(0, lag) : n + min(0, lag)], truth[max(0, -lag) : n - max(0, lag)])
        for lag in range(-MAX_LAG, MAX_LAG + 1)
    }
    return max(scores, key=lambda lag: scores[lag])


def psnr(squared_error: float) -> float:
    return float(10 * np.log10(255**2 / squared_error))


def crops_of(
    avatar: Avatar, speech: Speech, config: RenderConfig
) -> list[tuple[Frame, ImageArray]]:
    boxes = avatar.boxes
    frames = iter_frames(avatar, speech, config)
    return [(frame, roi_of(frame.data, boxes[frame.template_index])) for frame in frames]


def mouth_error(crop: ImageArray, template_index: int, mouth: np.ndarray) -> float:
    """Mean squared error of the mouth region against the drawn truth, 0..255 squared."""
    rows, columns = mouth_region(template_index)
    truth = draw_target(template_index, mouth)[rows, columns].astype(np.float64)
    return float(np.mean((crop[rows, columns] - truth) ** 2))


def evaluate_held_out(avatar: Avatar, sheet: Path | None) -> None:
    """Print r, lag and PSNR for each held-out sentence and for all together."""
    config = RenderConfig(batch_size=8)
    shown_all, truth_all, errors_all = [], [], []
    print(f"voice {HELD_OUT_VOICE}\n{'r':>6}{'lag':>5}{'PSNR':>8}  sentence")
    for number, sentence in enumerate(HELD_OUT_SENTENCES):
        clip = synthesise(sentence, HELD_OUT_VOICE, 160, 50)
        crops = crops_of(avatar, Speech(samples=clip.samples), config)
        shown = np.array([demo_mouth_opening(crop) for _, crop in crops])
        errors = [mouth_error(crop, f.template_index, clip.mouth[f.index]) for f, crop in crops]
        truth = clip.mouth[:, 0]
        print(
            f"{pearson(shown, truth):6.3f}{best_lag(shown, truth):5d}"
            f"{psnr(np.mean(errors)):8.2f}  {sentence}"
        )
        shown_all.append(shown), truth_all.append(truth), errors_all.extend(errors)
        if sheet is not None:
            write_sheet(sheet / f"held_out_{number:02d}.png", crops, clip.mouth)
    shown, truth = np.concatenate(shown_all), np.concatenate(truth_all)
    print(
        f"all held-out sentences: r {pearson(shown, truth):.3f}, best lag "
        f"{best_lag(shown, truth)} frames, mouth PSNR {psnr(np.mean(errors_all)):.2f} dB, "
        f"{len(shown)} frames"
    )


def evaluate_precision(avatar: Avatar, precision: str) -> None:
    """Print the mouth region's PSNR against FP32, and r against the truth of both."""
    configs = [RenderConfig(batch_size=8), RenderConfig(batch_size=8, precision=precision)]
    shown: list[list[float]] = [[], []]
    truth, errors = [], []
    for sentence in HELD_OUT_SENTENCES:
        clip = synthesise(sentence, HELD_OUT_VOICE, 160, 50)
        plain, other = (crops_of(avatar, Speech(samples=clip.samples), c) for c in configs)
        truth.extend(clip.mouth[:, 0])
        for kind, crops in enumerate((plain, other)):
            shown[kind].extend(demo_mouth_opening(crop) for _, crop in crops)
        for (frame, one), (_, two) in zip(plain, other, strict=True):
            rows, columns = mouth_region(frame.template_index)
            errors.append(np.mean((one[rows, columns].astype(float) - two[rows, columns]) ** 2))
    before, after = (pearson(np.array(values), np.array(truth)) for values in shown)
    frames = 10 * np.log10(255**2 / np.maximum(errors, 1e-9))
    print(
        f"{precision} against fp32: mouth PSNR {psnr(np.mean(errors)):.2f} dB (worst frame "
        f"{frames.min():.2f}), r {before:.4f} -> {after:.4f}, loss {before - after:.4f}, "
        f"{len(errors)} frames"
    )


def write_sheet(path: Path, crops: list[tuple[Frame, ImageArray]], mouths: np.ndarray) -> None:
    """Ten moments of a sentence: what the network painted above the drawn truth."""
    chosen = np.linspace(0, len(crops) - 1, 12).astype(int)[1:-1]
    painted = [crops[i][1] for i in chosen]
    drawn = [draw_target(crops[i][0].template_index, mouths[i]) for i in chosen]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, np.vstack([np.hstack(painted), np.hstack(drawn)]))


def envelope_db(samples: FloatArray, num_frames: int) -> np.ndarray:
    """Loudness of each video frame's 40 ms, dB under the loudest."""
    hop = SAMPLE_RATE // SPEC.fps
    padded = np.pad(samples, (0, max(0, num_frames * hop - len(samples))))
    power = (padded[: num_frames * hop].reshape(num_frames, hop) ** 2).mean(axis=1)
    return 10 * np.log10(power / power.max() + 1e-9)


def evaluate_real(avatar: Avatar, path: Path) -> None:
    """Print how far the mouth is open in the pauses and in the speech of a recording."""
    speech = load_speech(path)
    crops = crops_of(avatar, speech, RenderConfig(batch_size=8))
    shown = np.array([demo_mouth_opening(crop) for _, crop in crops])
    loudness = envelope_db(speech.samples, len(shown))
    percent = 100 * shown / np.percentile(shown, 99)
    quiet = percent[np.convolve(loudness < PAUSE_DB, np.ones(5), "same") == 5]
    loud = percent[loudness > SPEECH_DB]
    print(
        f"{path.name}: opening in % of its widest: pauses {quiet.mean():.1f} (95th percentile "
        f"{np.percentile(quiet, 95):.1f}, {len(quiet)} frames), speech {loud.mean():.1f} +- "
        f"{loud.std():.1f}; r with loudness {pearson(shown, np.maximum(loudness, -50)):.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", type=Path, help="a recording of real speech")
    parser.add_argument("--sheet", type=Path, help="folder for pictures: painted above drawn")
    parser.add_argument("--compare", choices=["int8", "fp16"], help="a precision to compare")
    parser.add_argument("--generator", type=Path, help="a network instead of the avatar's own")
    options = parser.parse_args()
    avatar = load_avatar("demo", options.generator)
    if options.compare is not None:
        evaluate_precision(avatar, options.compare)
        return
    evaluate_held_out(avatar, options.sheet)
    if options.real is not None:
        evaluate_real(avatar, options.real)


if __name__ == "__main__":
    main()
