"""A generator's file brought into the form that is prepared, and tried where it was not yet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lipsync_nb.errors import NetworkError
from lipsync_nb.network.files import read_network
from lipsync_nb.network.inference import Generator, Session, to_images
from lipsync_nb.network.kept import KeptNetworks
from lipsync_nb.network.normal_form import input_names, normal_form
from lipsync_nb.types.records import Batch, ModelSpec

# Mean over a picture, of 255.
LARGEST_FORM_ERROR = 1.0


@dataclass(frozen=True)
class NormalForm:
    """A generator in the form that is prepared, see `normal_form`.

    Attributes:
        model: the serialised network.
        names: of its picture and its audio input.
        note: what is to be told about it, or empty.
        is_own: it is the file as it is.
        digest: of the model.
    """

    model: bytes
    names: tuple[str, ...]
    note: str
    is_own: bool
    digest: str


@dataclass(frozen=True, eq=False)
class GeneratorFile:
    """A generator's file, and what is needed to find out what it gives.

    Attributes:
        path: of the file.
        spec: geometry of the network.
        kept: what was found out about it before.
        open: opens it as it is.
        trial: a batch of one real frame.
    """

    path: Path
    spec: ModelSpec
    kept: KeptNetworks
    open: Callable[[], Generator]
    trial: Callable[[], Batch]

    def normal_form(self) -> NormalForm:
        """The file in the form that is prepared; what its output means is found once, and kept.

        Raises:
            NetworkError, NotFoundError: it cannot be used at all.
        """
        model = read_network(self.path)
        names = tuple(input_names(self.path, model, self.spec.input_shapes))
        digest = hashlib.sha256(model).hexdigest()
        found = self.kept.output_range(digest, lambda: self.open().read_range(self.trial()))
        form = normal_form(
            model, self.path, self.spec.input_shapes, self.spec.output_shape, found.levels
        )
        is_own = form is model
        if not is_own:
            digest = hashlib.sha256(form).hexdigest()
        return NormalForm(form, names, found.note, is_own, digest)

    def check(self, form: NormalForm) -> None:
        """Try another form than the file's own, once: it must predict what the file predicts.

        Raises:
            NetworkError: it does not.
        """
        if not form.is_own:
            self.kept.check_form(form.digest, lambda: self._compare(form))

    def _compare(self, form: NormalForm) -> None:
        batch = self.trial()
        feeds = dict(zip(form.names, (batch.visual, batch.audio), strict=True))
        output = Session(form.model, self.path, provider="cpu")(feeds)[0]
        found = self.spec.in_colours(to_images(output))
        expected = self.open()(batch).images
        error = float(np.abs(found.astype(np.float32) - expected).mean())
        if error > LARGEST_FORM_ERROR:
            raise NetworkError(f"in float32 its predictions differ by {error:.1f} of 255")
