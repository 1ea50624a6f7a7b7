"""How alike two pictures are, and how far the demo avatar's mouth is open."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lipsync_nb.media.imaging import blurred
from lipsync_nb.types.arrays import AnyArray, ImageArray

# Where the mouth moves in the network's picture [320, 320], for faces boxed as SyncTalk_2D does.
MOUTH_REGION = (slice(64, 208), slice(72, 248))
IDENTICAL_DB = 100.0
SSIM_MISSING = "SSIM needs scikit-image, which is not here: pip install 'lipsync_nb[ssim]'."


@dataclass(frozen=True)
class Likeness:
    """How a picture differs from its reference.

    Attributes:
        psnr_db: peak signal-to-noise ratio, of the mean squared error; 100 where identical.
        ssim: structural similarity, mean over the pictures (Wang et al. 2004), 1 is identical;
            None without scikit-image, see `SSIM_MISSING`.
        largest: largest difference of a value, 0..255.
        worst: number of the picture with the largest squared error.
    """

    psnr_db: float
    ssim: float | None
    largest: int
    worst: int

    @property
    def ssim_text(self) -> str:
        """For a table's cell; a dash where it is not known."""
        return "-" if self.ssim is None else f"{self.ssim:.4f}"


def likeness(pictures: ImageArray, references: ImageArray) -> Likeness:
    """Compare pictures, uint8 ``[n, h, w, 3]`` BGR, with references of the same shape."""
    differences = np.abs(pictures.astype(np.int16) - references)
    errors = (differences.astype(np.float32) ** 2).mean(axis=(1, 2, 3))
    return Likeness(
        psnr_db=psnr_db(float(errors.mean())),
        ssim=_mean_ssim(pictures, references),
        largest=int(differences.max()),
        worst=int(errors.argmax()),
    )


def _mean_ssim(pictures: ImageArray, references: ImageArray) -> float | None:
    try:
        structural_similarity = importlib.import_module("skimage.metrics").structural_similarity
    except ImportError:
        return None
    scores = [
        structural_similarity(one, other, channel_axis=2, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False, data_range=255)
        for one, other in zip(pictures, references, strict=True)
    ]  # fmt: skip
    return float(np.mean(scores))


def decibel_text(value: float) -> str:
    """A PSNR as text; beyond `IDENTICAL_DB` there is nothing to tell."""
    return f"{value:.1f}" if value < IDENTICAL_DB else f"over {IDENTICAL_DB:.0f}"


def psnr_db(squared_error: float) -> float:
    """Peak signal-to-noise ratio in dB of a mean squared error of values 0..255."""
    if squared_error <= 0:
        return IDENTICAL_DB
    return min(IDENTICAL_DB, float(10 * np.log10(255**2 / squared_error)))


def pearson(one: npt.NDArray[np.floating], other: npt.NDArray[np.floating]) -> float:
    """Pearson's correlation of two sequences; 0 where one of them never changes."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def mouth_of(pictures: AnyArray) -> AnyArray:
    """The mouth region of pictures ``[..., 320, 320, 3]``, a view."""
    return pictures[..., MOUTH_REGION[0], MOUTH_REGION[1], :]


def demo_mouth_opening(picture: ImageArray) -> float:
    """Inner opening of the demo avatar's mouth in pixels of a network's picture, from colours.

    The interior is what is dark, or has little red over blue (teeth), or is the dull tongue; the
    result is the mean height of the thirty tallest columns. It knows the demo's colours alone.

    Args:
        picture: uint8 ``[320, 320, 3]`` BGR.
    """
    area = blurred(picture[80:190, 90:230], 1.0).astype(np.float32)
    blue, red = area[..., 0], area[..., 2]
    dark = 1 / (1 + np.exp(np.clip((red - 132) / 7, -30, 30)))
    pale = 1 / (1 + np.exp(np.clip((red - blue - 32) / 5, -30, 30)))
    heights = np.sort(np.maximum(dark, pale).sum(axis=0))
    return float(heights[-30:].mean())
