"""The package's data flows one way: a module imports only from layers below its own."""

import ast
from pathlib import Path

import pytest

import lipsync_nb

PACKAGE = Path(lipsync_nb.__file__).parent
LAYERS = [
    {
        "errors",
        "arrays",
        "limits",
        "console",
        "input_files",
        "files",
        "kept_files",
        "runtime",
        "providers",
        "quiet",
        "workers",
        "rich",
        "records",
        "timing",
        "overlap",
        "threads",
        "presets",
        "machine",
        "progress",
        "results",
    },
    {
        "imaging",
        "graphs",
        "integers",
        "network_files",
        "binding",
        "normal_form",
        "row_emitter",
        "row_kernels",
        "row_machine",
        "row_tails",
        "row_programs",
        "rewriting",
        "requantizing",
        "splitting",
        "unet328",
        "kept_arrays",
        "cache",
        "prepared",
        "quantization",
        "quality",
        "nal_units",
        "containers",
        "video_index",
        "timeline",
        "picture_files",
    },
    {
        "audio",
        "batching",
        "inference",
        "compositing",
        "sound",
        "sound_times",
        "soundtrack",
        "sinks",
        "video",
        "features",
        "preparation",
        "network_store",
        "network_checks",
        "fusion",
    },
    {"sources", "painters", "kept_networks"},
    {"boxes"},
    {"avatar"},
    {"generation"},
    {"pipeline", "origin"},
    {"measuring", "inside", "regression", "profiling", "footprint"},
    {"bench", "sweeps", "precision", "tuning"},
    {"stories"},
    {"markup"},
    {"charts"},
    {"displays"},
    {"result_displays"},
    {"report"},
    {"cli_experiments"},
    {"cli"},
    {"__main__"},
]
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
# Within a layer, only these lean on a neighbour: words and tools that the others build on.
NEIGHBOURS = {
    ("records", "errors"),
    ("records", "arrays"),
    ("arrays", "errors"),
    ("records", "rich"),
    ("timing", "rich"),
    ("results", "errors"),
    ("results", "files"),
    ("files", "errors"),
    ("input_files", "errors"),
    ("limits", "errors"),
    ("providers", "errors"),
    ("providers", "runtime"),
    ("runtime", "errors"),
    ("picture_files", "containers"),
    ("threads", "records"),
    ("presets", "errors"),
    ("presets", "records"),
    ("progress", "records"),
    ("progress", "console"),
    ("machine", "threads"),
    ("cache", "imaging"),
    ("prepared", "imaging"),
    ("prepared", "cache"),
    ("cache", "kept_arrays"),
    ("prepared", "kept_arrays"),
    ("kept_files", "files"),
    ("quality", "imaging"),
    ("picture_files", "imaging"),
    ("video_index", "imaging"),
    ("video_index", "nal_units"),
    ("row_kernels", "row_emitter"),
    ("row_machine", "row_emitter"),
    ("row_machine", "row_kernels"),
    ("row_programs", "row_kernels"),
    ("row_programs", "row_machine"),
    ("row_tails", "row_emitter"),
    ("row_programs", "row_tails"),
    ("row_tails", "row_kernels"),
    ("row_tails", "splitting"),
    ("row_tails", "graphs"),
    ("fusion", "inference"),
    ("binding", "network_files"),
    ("normal_form", "binding"),
    ("normal_form", "network_files"),
    ("quantization", "graphs"),
    ("quantization", "network_files"),
    ("quantization", "integers"),
    ("sinks", "soundtrack"),
    ("normal_form", "graphs"),
    ("video_index", "containers"),
    ("soundtrack", "sound"),
    ("audio", "sound"),
    ("sound", "sound_times"),
}


def layer_of(module: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if module in layer)


def imports_of(module: str) -> set[str]:
    """What a module imports to run; what it names in types alone does not count."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 1]
    return {n.module for n in nodes if n.module}


@pytest.mark.parametrize("module", MODULES)
def test_module_imports_only_from_below(module: str) -> None:
    for imported in imports_of(module):
        below = layer_of(imported) < layer_of(module)
        assert below or (module, imported) in NEIGHBOURS, f"{module} imports {imported}"


def test_every_layered_module_exists() -> None:
    assert set().union(*LAYERS) == set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_small(module: str) -> None:
    source = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node) or ""
            length = (node.end_lineno or 0) - node.lineno - docstring.count("\n")
            assert length <= 60, f"{module}.{node.name} has {length} lines"


@pytest.mark.parametrize("module", [m for m in MODULES if layer_of(m) < len(LAYERS) - 3])
def test_only_the_faces_print_or_know_widgets(module: str) -> None:
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    calls = {
        n.func.id
        for n in ast.walk(tree)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)
    }
    names = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    assert "print" not in calls or module == "console"
    assert not names & {"ipywidgets", "IPython", "matplotlib"}


def test_public_names_resolve_and_are_documented() -> None:
    for name in lipsync_nb.__all__:
        assert getattr(lipsync_nb, name).__doc__, name
