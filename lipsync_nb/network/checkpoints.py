"""PyTorch checkpoints of the published networks made into ONNX files. Needs PyTorch."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx

from lipsync_nb.errors import MissingLibraryError, NetworkError, NotFoundError
from lipsync_nb.system.outputs import check_output_file, refuse_inputs, write_file
from lipsync_nb.system.quiet import without_warnings
from lipsync_nb.types.arrays import AnyArray
from lipsync_nb.types.rich import Rich
from lipsync_nb.types.table import Column, Table

from .runtime import first_line, ort
from .unet328 import (
    AUDIO_SHAPE,
    AUDIO_WIDTH_ENTRIES,
    PICTURE_SHAPE,
    PREFIX,
    WIDTH_ENTRIES,
    WINDOW_SHAPE,
    audio_encoder_onnx,
    expected_entries,
    generator_onnx,
)

Kind = Literal["generator", "encoder"]
Arrays = dict[str, AnyArray]
# Of what PyTorch computes from the same numbers; of features, by their size.
LARGEST_DIFFERENCE = 1e-4
_SHOWN = {"generator": "SyncTalk_2D-328 generator", "encoder": "SyncTalk_2D audio encoder"}
# Of BatchNorm, while it is trained.
_IDLE_ENTRY = "num_batches_tracked"
_MOST_NESTED = 4


@dataclass(frozen=True)
class Exported(Rich):
    """What an export found and made.

    Attributes:
        path: the ONNX file.
        network: which one the checkpoint holds.
        channels: its width: channels of each stage.
        place: where in the checkpoint its weights are; empty: at the top.
        surplus: entries that the network does not have, and that were left out.
        difference: the largest from PyTorch's result on the same numbers, see
            `LARGEST_DIFFERENCE`.
    """

    path: Path
    network: str
    channels: tuple[int, ...]
    place: str
    surplus: tuple[str, ...]
    difference: float

    def __str__(self) -> str:
        return f"{self.path}: {self.network}\n{self.table}"

    @property
    def table(self) -> Table:
        """A row for each finding."""
        rows = [
            ("channels", ", ".join(map(str, self.channels))),
            ("weights from", self.place or "the top of the file"),
            ("left out", _listed(self.surplus) if self.surplus else "nothing"),
            ("difference from PyTorch", f"{self.difference:.2g}, allowed {LARGEST_DIFFERENCE:g}"),
        ]
        return Table.of(
            [
                Column("found", lambda row: row[0], is_text=True),
                Column("value", lambda row: row[1], is_text=True),
            ],
            rows,
        )


def export_checkpoint(checkpoint: str | Path, out: str | Path) -> Exported:
    """Make an ONNX file of a published network's checkpoint: any batch size, float32.

    Which network it is, and how wide, is told from names and shapes; wrappers around the weights
    and prefixes before their names (``module.``, ``model.``) are found. The file is compared with
    PyTorch on random numbers before it is written.

    Args:
        checkpoint: as ``torch.save`` wrote it, weights alone: no code of it is run.
        out: the ``.onnx`` file, replaced only when the new one is complete.

    Raises:
        NotFoundError: there is no such checkpoint.
        NetworkError: it is none, is damaged or holds more than weights; it is of another network;
            entries are missing; or the result differs from PyTorch's.
        MissingLibraryError: PyTorch is not installed.
        OutputError: the file cannot be written.

    Example:
        >>> export_checkpoint("checkpoint_epoch_335.pth", "generator.onnx")  # doctest: +SKIP
    """
    path, target = Path(checkpoint), check_output_file(out)
    refuse_inputs(target, [path])
    found = _recognised(path, _loaded(path))
    model = (generator_onnx if found.kind == "generator" else audio_encoder_onnx)(found.state)
    difference = _difference(path, found, model)
    write_file(target, model.SerializeToString())
    return Exported(
        target, _SHOWN[found.kind], found.channels, found.place, found.surplus, difference
    )


def describe_checkpoint(checkpoint: str | Path) -> dict[str, str]:
    """What `export_checkpoint` would make a network of, as texts by name; nothing is written.

    Raises:
        NotFoundError, NetworkError, MissingLibraryError: as `export_checkpoint`.
    """
    path = Path(checkpoint)
    found = _recognised(path, _loaded(path))
    return {
        "network": _SHOWN[found.kind],
        "channels": ", ".join(map(str, found.channels)),
        "weights from": found.place or "the top of the file",
        "left out": _listed(found.surplus) if found.surplus else "nothing",
    }


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingLibraryError(
            f"PyTorch cannot be imported ({error}), which reads checkpoints: pip install "
            "'lipsync_nb[export]'."
        ) from error
    return torch


def _loaded(path: Path) -> Any:
    """What a checkpoint holds: tensors, numbers and texts alone."""
    torch = _torch()
    if not path.is_file():
        raise NotFoundError(f"{path}: no such checkpoint.")
    try:
        # PyTorch warns of pickles that it then refuses.
        with without_warnings:
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({names[0]})" if names else ""
        raise NetworkError(
            f"{path}: holds Python objects{what} beside weights, or is damaged; what could run "
            "code is not loaded, expected what torch.save(model.state_dict(), ...) writes."
        ) from error
    except Exception as error:  # PyTorch raises many kinds
        # Of some files the message is a bare number, of others it advises PyTorch's authors.
        reason = first_line(error).split(". ")[0]
        reason = reason if " " in reason else type(error).__name__
        raise NetworkError(f"{path}: not a whole PyTorch checkpoint ({reason}).") from error


@dataclass(frozen=True)
class _Found:
    kind: Kind
    state: Arrays
    channels: tuple[int, ...]
    place: str
    surplus: tuple[str, ...]


def _recognised(path: Path, content: Any) -> _Found:
    """The network whose weights a checkpoint holds."""
    names: list[str] = []
    for place, tensors in _states(content, "", _MOST_NESTED):
        names += tensors
        for kind in ("generator", "encoder"):
            state = _without_prefix(tensors, kind)
            if state:
                return _checked(path, kind, state, place)
    found = f"{len(names)} arrays such as {_listed(names)}" if names else "no named arrays"
    raise NetworkError(f"{path}: holds {found}, expected a {' or a '.join(_SHOWN.values())}.")


def _states(content: Any, place: str, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each mapping of names to tensors within a checkpoint, and where it is."""
    if not isinstance(content, Mapping):
        return
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and hasattr(v, "numpy")}
    if tensors:
        yield place, tensors
    for name, inner in content.items() if depth else ():
        yield from _states(inner, f"{place}.{name}" if place else str(name), depth - 1)


def _without_prefix(tensors: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """A network's entries by their own names; empty where it is another one."""
    mark = WIDTH_ENTRIES[0] if kind == "generator" else AUDIO_WIDTH_ENTRIES[0].removeprefix(PREFIX)
    for name in tensors:
        prefix = name.removesuffix(mark)
        if prefix != name and (not prefix or prefix.endswith(".")):
            own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
            return own if kind == "generator" else {PREFIX + k: v for k, v in own.items()}
    return {}


def _checked(path: Path, kind: Kind, tensors: Mapping[str, Any], place: str) -> _Found:
    """The entries that the network has, in float32, all of them there and of the right shape."""
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    expected = expected_entries({k: v.float().numpy() for k, v in tensors.items()}, kind)
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise NetworkError(
            f"{path}: a {_SHOWN[kind]} without {len(missing)} of its {len(expected)} entries: "
            f"{_listed(missing)}."
        )
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise NetworkError(
                f"{path}: {name} has shape {list(tensors[name].shape)}, expected {list(shape)}."
            )
    state = {name: tensors[name].float().numpy() for name in expected}
    surplus = [name for name in tensors if name not in expected and not name.endswith(_IDLE_ENTRY)]
    widths = WIDTH_ENTRIES if kind == "generator" else AUDIO_WIDTH_ENTRIES
    channels = tuple(int(state[name].shape[0]) for name in widths)
    return _Found(kind, state, channels, place, tuple(surplus))


def _listed(names: list[str] | tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _difference(path: Path, found: _Found, model: onnx.ModelProto) -> float:
    """The largest difference of a graph's result from PyTorch's, on random numbers."""
    from .torch_networks import AudioEncoder, UNet328

    torch, rng = _torch(), np.random.default_rng(0)
    is_generator = found.kind == "generator"
    network = (UNet328 if is_generator else AudioEncoder)(found.channels)
    network.load_state_dict({k: torch.from_numpy(v) for k, v in found.state.items()}, strict=False)
    shapes = (PICTURE_SHAPE, AUDIO_SHAPE) if is_generator else (WINDOW_SHAPE,)
    arrays = [rng.random((2, *shape), np.float32) for shape in shapes]
    with torch.no_grad():
        expected = network.eval()(*map(torch.from_numpy, arrays)).numpy()
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = dict(zip([node.name for node in session.get_inputs()], arrays, strict=True))
    result = session.run(None, feeds)[0].reshape(expected.shape)
    size = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(result - expected).max()) / size
    if not difference <= LARGEST_DIFFERENCE:
        raise NetworkError(
            f"{path}: the exported network differs from PyTorch's by {difference:.2g}, expected "
            f"at most {LARGEST_DIFFERENCE:g}."
        )
    return difference
