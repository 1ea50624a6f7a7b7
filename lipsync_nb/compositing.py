"""Painting predictions into the full frames, through joblib."""

from __future__ import annotations

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from .cache import Template
from .imaging import resize
from .records import Box, Frame, ImageArray, ModelSpec, Predictions

JOBLIB_WINDOW = 32


def paste_face(
    frame: ImageArray, crop: ImageArray, prediction: ImageArray, box: Box, spec: ModelSpec
) -> None:
    """Paint a prediction into a full frame, in place.

    The prediction goes inside the crop, whose ring of ``spec.margin`` pixels stays original; the
    crop is resized to the box's own size and written over it.

    Args:
        frame: uint8 ``[H, W, 3]`` BGR, written to.
        crop: uint8 ``[crop_size, crop_size, 3]`` BGR, not written to.
        prediction: uint8 ``[input_size, input_size, 3]`` BGR.
    """
    face = crop.copy()
    face[spec.inside, spec.inside] = prediction
    frame[box.rows, box.columns] = resize(face, box.width, box.height, spec.interpolation)


def composite_frame(
    template: Template, index: int, prediction: ImageArray, out: ImageArray | None = None
) -> ImageArray:
    """Template frame ``index`` with a prediction painted in, uint8 ``[H, W, 3]`` BGR.

    Args:
        out: written to and returned, where given; else a new array.
    """
    if out is None:
        out = np.empty_like(template.frames[index])
    np.copyto(out, template.frames[index])
    paste_face(out, template.crop(index), prediction, template.boxes[index], template.spec)
    return out


def _composite_some(template: Template, indices: list[int], images: ImageArray) -> list[ImageArray]:
    return [composite_frame(template, i, image) for i, image in zip(indices, images, strict=True)]


class Compositor:
    """Composites windows of predictions; a context manager that holds the joblib workers.

    A window should hold many frames (see `JOBLIB_WINDOW`): a joblib call has a fixed cost of
    about 10 ms, whatever it carries.

    Args:
        n_jobs: joblib's number of workers; 1 works in the calling thread, -1 is one a core.
    """

    def __init__(self, template: Template, n_jobs: int = 1) -> None:
        self.template = template
        self.workers = effective_n_jobs(n_jobs)
        self._parallel = Parallel(n_jobs=self.workers, prefer="threads")

    def __enter__(self) -> Compositor:
        self._parallel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._parallel.__exit__(*error)

    def __call__(self, window: Predictions) -> list[Frame]:
        """Finished frames of a window, in its order."""
        indices = window.template_indices.tolist()
        size = -(-len(indices) // self.workers)
        parts = self._parallel(
            delayed(_composite_some)(
                self.template, indices[i : i + size], window.images[i : i + size]
            )
            for i in range(0, len(indices), size)
        )
        images = (image for part in parts for image in part)
        fps = self.template.spec.fps
        return [
            Frame(int(index), template_index, float(index) / fps, image)
            for index, template_index, image in zip(
                window.frame_indices, indices, images, strict=True
            )
        ]
