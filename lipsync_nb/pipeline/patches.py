"""The predictor whose network gives finished patches, with template and features on the device."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from lipsync_nb.avatar.cache import Template
from lipsync_nb.config.render_config import RenderConfig, kept_by
from lipsync_nb.config.thread_plan import ThreadPlan
from lipsync_nb.errors import NetworkError, ProviderError
from lipsync_nb.network.boundary import BoundaryTensor
from lipsync_nb.network.device.cuda import buffer_maker
from lipsync_nb.network.device.patch_graph import (
    CROPS,
    FEATURE_AXIS,
    FEATURE_ROWS,
    ORIGINALS,
    PATCHES,
    PLACES,
    ROWS,
    TEMPLATE_AXIS,
    halves_with_patches,
    stored_name,
    whole_with_patches,
)
from lipsync_nb.network.device.session import DeviceSession, DeviceSetting, Lane, Stored
from lipsync_nb.network.graphs import MEAN_OUTPUT
from lipsync_nb.network.inference import check_numbers
from lipsync_nb.network.kept import DEPENDENT, INDEPENDENT, WHOLE, Files
from lipsync_nb.network.providers import CPU, first_provider, is_on_nvidia
from lipsync_nb.types.arrays import FLOAT32, UINT8, AnyArray, IndexArray
from lipsync_nb.types.patches import FinishedPatches, PatchLayout
from lipsync_nb.types.records import Batch, FeatureDtype, Predictions

from .batches import Inputs
from .owner import Owner
from .picture_pool import PicturePool
from .shares import Remarks, Share

# Batches at the same time on a GPU, where nothing is asked for: one is prepared meanwhile.
DEVICE_STREAMS = 2


class DeviceTemplate:
    """The template frames of a render on the device.

    Args:
        frames: the template frames that are used, each once.
    """

    def __init__(
        self, session: DeviceSession, template: Template, frames: IndexArray, layout: PatchLayout
    ) -> None:
        self.rows = {int(frame): row for row, frame in enumerate(frames)}
        arrays = template_arrays(template, frames, layout)
        self.constants = {name: session.store(array) for name, array in arrays.items()}

    def rows_of(self, frames: IndexArray) -> IndexArray:
        """Their rows on the device, int64."""
        return np.array([self.rows[int(frame)] for frame in frames], np.int64)


def bytes_of_frame(template: Template, layout: PatchLayout) -> int:
    """What a template frame takes on the device."""
    patch = 3 * layout.height * layout.width if layout.pixels == "i420" else 0
    return 3 * template.spec.crop_size**2 + patch + 16


def template_arrays(
    template: Template, frames: IndexArray, layout: PatchLayout
) -> dict[str, AnyArray]:
    """What a graph takes of these template frames, ``[T, ...]`` by name; see `give_patches`."""
    size, count = template.spec.crop_size, len(frames)
    arrays: dict[str, AnyArray] = {
        CROPS: np.empty((count, 3, size, size), np.uint8),
        PLACES: np.stack([layout.place(template.boxes[frame]) for frame in frames]),
    }
    for crop, frame in zip(arrays[CROPS], frames, strict=True):
        crop[:] = template.crop(int(frame)).transpose(2, 0, 1)
    if template.planar is not None:
        arrays[ORIGINALS] = np.zeros((count, 3, layout.height, layout.width), np.uint8)
        for original, frame in zip(arrays[ORIGINALS], frames, strict=True):
            patch = template.planar.patches[frame]
            original[:, : patch.shape[0], : patch.shape[1]] = patch.transpose(2, 0, 1)
    return arrays


class DeviceFeatures:
    """Features of template frames on the device, computed when a frame is first used.

    Threads may share it.

    Args:
        independent: gives them, from `take_crops`.
        boundary: what it gives.
        capacity: frames that there is room for.
    """

    def __init__(
        self,
        independent: DeviceSession,
        boundary: Sequence[BoundaryTensor],
        template: DeviceTemplate,
        capacity: int,
    ) -> None:
        self._boundary, self._template = boundary, template
        self._batch = independent.batch_size
        # A batch is always written whole: the last one reaches past the end.
        room = capacity + self._batch
        self._stores = {t.name: independent.room((room, *t.shape), t.dtype) for t in boundary}
        self._slots: dict[int, int] = {}
        self._lane = Lane(independent, {CROPS: template.constants[CROPS]})
        self._lock = threading.Lock()

    @property
    def constants(self) -> dict[str, Stored]:
        """As the dependent half takes them."""
        return {stored_name(t): self._stores[t.name] for t in self._boundary}

    def slots_of(self, frames: IndexArray) -> IndexArray:
        """Where these frames' features are, int64; what is missing is computed first."""
        with self._lock:
            missing = [f for f in dict.fromkeys(frames.tolist()) if f not in self._slots]
            for start in range(0, len(missing), self._batch):
                self._fill(missing[start : start + self._batch])
            return np.array([self._slots[frame] for frame in frames.tolist()], np.int64)

    def _fill(self, frames: list[int]) -> None:
        first = len(self._slots)
        self._lane.feed({ROWS: self._template.rows_of(np.array(frames))})
        places = {}
        for tensor in self._boundary:
            address = self._stores[tensor.name].data_ptr() + first * tensor.nbytes
            places[tensor.name] = address, (self._batch, *tensor.shape), tensor.dtype
        self._lane.run_to(places)
        self._slots |= {frame: first + k for k, frame in enumerate(frames)}


class DeviceNetwork:
    """A network on the device, with the template and the features that it takes.

    Any number of threads may run it at the same time.

    Args:
        features: of its independent half, where it is run in halves.
        num_bytes: of template and features.
        notes: what was chosen, a line each.
    """

    file_bytes = 0

    def __init__(
        self,
        session: DeviceSession,
        template: DeviceTemplate,
        features: DeviceFeatures | None,
        layout: PatchLayout,
        num_bytes: int,
        notes: tuple[str, ...],
    ) -> None:
        self.session, self.layout, self.notes = session, layout, notes
        self._template, self._features, self._num_bytes = template, features, num_bytes
        constants = {**template.constants, **(features.constants if features else {})}
        self._constants = {k: v for k, v in constants.items() if k in session.inputs}
        make = buffer_maker(session.device == "cuda")
        self._buffers = PicturePool(make=lambda shape: make(shape, UINT8))
        self._lanes: deque[Lane] = deque()

    @property
    def ram_bytes(self) -> int:
        """Of the template and the features, where the device is the processor."""
        return self._num_bytes if self.session.device == "cpu" else 0

    def __call__(self, audio: tuple[str, AnyArray], frames: IndexArray) -> AnyArray:
        """Patches uint8 ``[batch, layout.num_bytes]`` of these template frames with their sound.

        Args:
            audio: the input's name, and float32 ``[n, ...]``, n at most the session's batch.

        Raises:
            NetworkError: it cannot be run, or gives NaN or infinity.
        """
        feeds: dict[str, AnyArray] = {audio[0]: audio[1], ROWS: self._template.rows_of(frames)}
        if self._features is not None:
            feeds[FEATURE_ROWS] = self._features.slots_of(frames)
        lane, batch = self._taken_lane(), self.session.batch_size
        patches = self._buffers.take((batch, self.layout.num_bytes))
        mean = np.empty(batch, FLOAT32)
        try:
            lane.feed(feeds)
            lane.run_into({PATCHES: patches, MEAN_OUTPUT: mean})
        finally:
            self._lanes.append(lane)
        check_numbers(mean[: len(frames)], self.session.name)
        return patches

    def _taken_lane(self) -> Lane:
        try:
            return self._lanes.pop()
        except IndexError:
            return Lane(self.session, self._constants)

    @property
    def any_frame(self) -> int:
        """One of the template frames that are here."""
        return next(iter(self._template.rows))

    def give_back(self, patches: AnyArray) -> None:
        """Take patches' memory back for later ones."""
        self._buffers.give(patches)


class PatchPredictor:
    """Runs a network that takes template frames by number, and gives finished patches.

    Args:
        audio: name of the network's audio input.
    """

    def __init__(
        self, inputs: Inputs, network: DeviceNetwork, audio: str, share: Share, remarks: Remarks
    ) -> None:
        self._inputs, self._network, self._audio = inputs, network, audio
        self.streams, self.batch_size = share.streams, share.batch_size
        self.provider, self.batching = network.session.provider, "dynamic"
        self.notes, self.shortfalls = remarks.notes, remarks.shortfalls

    def batch(self, frames: IndexArray, template_frames: IndexArray) -> Batch:
        return self._inputs.batch(frames, template_frames, np.empty(0, np.int64))

    def __call__(self, batch: Batch) -> Predictions:
        network = self._network
        patches = network((self._audio, batch.audio), batch.template_indices)
        return FinishedPatches(
            batch.frame_indices,
            batch.template_indices,
            patches[: len(batch)],
            network.layout,
            partial(network.give_back, patches),
        )

    def warm_up(self, count: int) -> None:
        noise = self._inputs.noise(count)
        frames = np.full(count, self._network.any_frame, np.int64)
        network = self._network
        network.give_back(network((self._audio, noise.audio), frames))

    def keep(self) -> None:
        """Nothing is kept on disk."""


def composites_in_network(config: RenderConfig) -> bool:
    """Whether a configuration asks for finished patches."""
    if config.compositing == "auto":
        return is_on_nvidia(config.device)
    return config.compositing == "network"


@dataclass(frozen=True, eq=False)
class PatchOpener:
    """Opens the network that gives finished patches, in halves where features are kept.

    Attributes:
        owner: whose generator it is.
        order: template frame of every output frame.
        names: of the prepared network's picture and audio input.
    """

    owner: Owner
    inputs: Inputs
    order: IndexArray
    names: tuple[str, ...]
    config: RenderConfig
    share: Share
    setting: DeviceSetting

    @classmethod
    def of(
        cls,
        owner: Owner,
        inputs: Inputs,
        order: IndexArray,
        names: tuple[str, ...],
        config: RenderConfig,
        plan: ThreadPlan,
        path: Path,
    ) -> PatchOpener:
        """As configured; on a GPU with `DEVICE_STREAMS` by default."""
        share = Share.of(config, plan.streams)
        if is_on_nvidia(config.device) and not config.streams:
            share = replace(share, streams=DEVICE_STREAMS)
        setting = DeviceSetting(path, config.device, share.batch_size, plan.network, plan.spinning)
        return cls(owner, inputs, order, names, config, share, setting)

    @property
    def _template(self) -> Template:
        return self.inputs.template

    @cached_property
    def _frames(self) -> IndexArray:
        """The template frames that are used."""
        return np.unique(self.order)

    @cached_property
    def _layout(self) -> PatchLayout:
        boxes = [self._template.boxes[frame] for frame in self._frames]
        return PatchLayout.of(boxes, self._template.pixels)

    @property
    def feature_dtype(self) -> FeatureDtype:
        """How features are kept on the device: as they are, or in half the bytes."""
        is_half = "float16" in (self.config.feature_dtype, _DTYPES.get(self.config.precision))
        return "float16" if is_half else "float32"

    def best(
        self,
        whole: Use,
        halves: UseHalves,
        key: Hashable,
        remarks: Remarks,
    ) -> PatchPredictor:
        """In halves where the device has room for the features of all frames, else in one piece.

        Args:
            whole, halves: use the prepared network, see `KeptNetworks`.
            key: of the network; what is open under it, and all else that counts, is used again.

        Raises:
            NetworkError, ProviderError: it cannot be opened.
        """
        first = first_provider(self.config.device)
        if first != CPU and not is_on_nvidia(self.config.device):
            raise NetworkError(f"{first} has no arrays that stay on the device")
        if self.config.colour_match:
            raise NetworkError("colour_match compares predictions as the network gives them")
        key = (key, self.setting, self._layout, self._frames.tobytes(), *kept_by(self.config))
        network = self.owner.recall_features(key)
        if not isinstance(network, DeviceNetwork):
            # What is let go makes room first.
            self.owner.remember_features(key, None)
            network = self._opened(whole, halves)
            self.owner.remember_features(key, network)
        for note in network.notes:
            remarks = remarks.and_note(note)
        return PatchPredictor(self.inputs, network, self.names[1], self.share, remarks)

    def _opened(self, whole: Use, halves: UseHalves) -> DeviceNetwork:
        reason = "as configured"
        if self.config.feature_cache != "off":
            opened = self._halves(halves)
            if isinstance(opened, DeviceNetwork):
                return opened
            reason = opened.rstrip(".")
        found = whole(partial(self._in_one, note=f"feature cache off: {reason}."))
        if isinstance(found, str):
            raise NetworkError(found)
        return found

    def _halves(self, halves: UseHalves) -> Opened:
        try:
            return halves(self.feature_dtype, self._in_halves)
        except ProviderError:
            raise
        except NetworkError as error:
            return str(error)

    def _in_one(self, files: Files, note: str) -> Opened:
        """What is lacking is given as text: the files are none the worse for it."""
        layout = self._layout
        model = whole_with_patches(files[WHOLE], self.names[0], self._template.spec, layout)
        session = self.setting.open(model, {TEMPLATE_AXIS: len(self._frames)})
        return self._lacking(session, layout) or self._network(session, layout, note)

    def _in_halves(self, files: Files) -> Opened:
        layout, count = self._layout, len(self._frames)
        halves = files[INDEPENDENT], files[DEPENDENT]
        first, second, boundary = halves_with_patches(
            halves, self.names[0], self._template.spec, layout
        )
        needed = count * sum(tensor.nbytes for tensor in boundary)
        what, budget = f"features of {count} frames", self.config.feature_cache_mb
        if needed > budget * 1_000_000:
            return f"{what} take {needed / 1e6:,.0f} MB, feature_cache_mb is {budget}"
        sizes = {TEMPLATE_AXIS: count, FEATURE_AXIS: count + self.share.batch_size}
        session = self.setting.open(second, sizes)
        if reason := self._lacking(session, layout, needed, what):
            return reason
        note = f"{what} on the device, {needed / 1e6:,.0f} MB."
        return self._network(session, layout, note, (self.setting.open(first, sizes), boundary))

    def _lacking(
        self, session: DeviceSession, layout: PatchLayout, features: int = 0, what: str = ""
    ) -> str:
        count = len(self._frames)
        needed = features + count * bytes_of_frame(self._template, layout)
        return session.why_no_room(needed, " and ".join(filter(None, [f"{count} crops", what])))

    def _network(
        self,
        session: DeviceSession,
        layout: PatchLayout,
        note: str,
        independent: tuple[DeviceSession, Sequence[BoundaryTensor]] | None = None,
    ) -> DeviceNetwork:
        frames = self._frames
        template = DeviceTemplate(session, self._template, frames, layout)
        num_bytes, features = len(frames) * bytes_of_frame(self._template, layout), None
        if independent is not None:
            features = DeviceFeatures(*independent, template, len(frames))
            num_bytes += len(frames) * sum(tensor.nbytes for tensor in independent[1])
        size = f"{layout.width}x{layout.height}, {layout.pixels}"
        notes = f"compositing in the network's graph: patches of {size}.", note
        return DeviceNetwork(session, template, features, layout, num_bytes, notes)


# A network, or why there is none.
Opened = DeviceNetwork | str
Use = Callable[[Callable[[Files], Opened]], Opened]
UseHalves = Callable[[FeatureDtype, Callable[[Files], Opened]], Opened]
_DTYPES = {"fp16": "float16"}
