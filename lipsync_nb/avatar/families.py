"""Which family a generator's file belongs to, by the shapes that it declares."""

from __future__ import annotations

from pathlib import Path

from lipsync_nb.errors import ConfigError, LipsyncError, NetworkError
from lipsync_nb.system.inputs import read_file
from lipsync_nb.types.families import Dims, family, recognised
from lipsync_nb.types.records import SYNCTALK_328, ModelSpec, shown

# Protocol buffers end there.
_LARGEST_BYTES = 2**31 - 1


def spec_for(wanted: str | ModelSpec, generator: Path | None) -> tuple[ModelSpec, str]:
    """The family that was asked for, or the one that a generator's file belongs to.

    Args:
        wanted: ``auto``, the name of a known family, or a family.

    Returns:
        The family; and why the file's is not known, a sentence without its end, or empty. What
        is wrong with a file that cannot be read is told when it is opened.

    Raises:
        ConfigError: there is no family of this name.
    """
    if isinstance(wanted, ModelSpec):
        return wanted, ""
    if not isinstance(wanted, str):
        raise ConfigError(f"spec: found {shown(wanted)}, expected 'auto', a name or a ModelSpec.")
    if wanted != "auto":
        return family(wanted), ""
    shapes = None if generator is None else _declared_shapes(generator)
    if shapes is None:
        return SYNCTALK_328, ""
    found = recognised(*shapes)
    return (SYNCTALK_328, found) if isinstance(found, str) else (found, "")


def _declared_shapes(path: Path) -> tuple[list[Dims], list[Dims]] | None:
    """Shapes of a network's inputs and outputs; None where the file cannot be read as one."""
    import onnx

    try:
        content = read_file(path, NetworkError, _LARGEST_BYTES)
    except LipsyncError:
        return None
    try:
        graph = onnx.load_from_string(content).graph
    except Exception:  # protobuf raises many kinds
        return None
    constants = {tensor.name for tensor in graph.initializer}
    given = [value for value in graph.input if value.name not in constants]
    if not graph.node or not given:
        return None
    return [_dims(value) for value in given], [_dims(value) for value in graph.output]


def _dims(value: object) -> Dims:
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]
    return [dim.dim_value or dim.dim_param or "?" for dim in dims]
