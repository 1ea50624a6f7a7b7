"""The package is a house of rooms: imports go down, in few steps, and no room is overfull."""

import ast
import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import grimp
import pytest
from importlinter.cli import lint_imports

import lipsync_nb

ROOT = Path(__file__).parents[1]
PACKAGE = Path(lipsync_nb.__file__).parent
MOST_LINES, MOST_FUNCTION_LINES, MOST_LEVELS = 450, 60, 12
MOST_NAMES = 36
PUBLIC_ROOMS = ("experiments", "network", "notebook", "widgets")
FILES = sorted(PACKAGE.rglob("*.py"))
# Only these print or know widgets: faces, and a program that tells another of its progress.
FACES = ("cli", "widgets", "system/console.py", "experiments/one_clip.py")


@cache
def imports() -> dict[str, set[str]]:
    """What each module imports, whatever for: to run, for its types, or within a function."""
    graph = grimp.build_graph("lipsync_nb", cache_dir=None)
    modules = graph.modules - {"lipsync_nb"}
    return {m: graph.find_modules_directly_imported_by(m) & modules for m in modules}


def levels() -> dict[str, int]:
    """How many imports lie one on top of the other below each module, itself included."""
    found: dict[str, int] = {}

    def level(module: str, above: tuple[str, ...]) -> int:
        assert module not in above, f"a circle: {' -> '.join([*above, module])}"
        if module not in found:
            below = [level(name, (*above, module)) for name in imports()[module]]
            found[module] = 1 + max(below, default=0)
        return found[module]

    for module in imports():
        level(module, ())
    return found


def test_rooms_import_from_rooms_below_them() -> None:
    """The contract is in pyproject.toml."""
    found = lint_imports(str(ROOT / "pyproject.toml"), no_cache=True)
    assert found == 0


def test_there_are_no_circles_and_few_levels() -> None:
    found = levels()
    assert max(found.values()) <= MOST_LEVELS, sorted(found, key=found.__getitem__)[-5:]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_modules_and_functions_stay_small(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node) or ""
            length = (node.end_lineno or 0) - node.lineno - docstring.count("\n")
            assert length <= MOST_FUNCTION_LINES, f"{node.name} has {length} lines"


@pytest.mark.parametrize(
    "file",
    [f for f in FILES if not str(f.relative_to(PACKAGE)).startswith(FACES)],
    ids=lambda f: str(f.relative_to(PACKAGE)),
)
def test_only_the_faces_print_or_know_widgets(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    calls = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    names = {a.name.split(".")[0] for n in nodes if isinstance(n, ast.Import) for a in n.names}
    names |= {(n.module or "").split(".")[0] for n in nodes if isinstance(n, ast.ImportFrom)}
    assert "print" not in calls
    assert not names & {"ipywidgets", "IPython", "matplotlib"}


def test_rooms_at_first_sight() -> None:
    """A room says in a line what it is for."""
    entries = [p for p in PACKAGE.iterdir() if not p.name.startswith("__") and p.name != "demo"]
    assert len(entries) <= 16, sorted(p.name for p in entries)
    for room in PACKAGE.rglob("__init__.py"):
        docstring = ast.get_docstring(ast.parse(room.read_text(encoding="utf-8")))
        assert docstring, f"{room.parent.name} has no docstring"


def public_names() -> dict[str, object]:
    """What is public, by name: of the package, and of the rooms that list names."""
    found = {name: getattr(lipsync_nb, name) for name in lipsync_nb.__all__}
    for room in PUBLIC_ROOMS:
        module = import_module(f"lipsync_nb.{room}")
        assert set(module.__all__) <= set(dir(module))
        found |= {f"{room}.{name}": getattr(module, name) for name in module.__all__}
    return found


def test_public_names_are_few_and_documented() -> None:
    assert len(lipsync_nb.__all__) <= MOST_NAMES
    for name, value in public_names().items():
        assert value.__doc__, name


NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda f: f.stem)
def test_notebooks_use_public_names_only(file: Path) -> None:
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
    used = set(re.findall(rf"\blnb\.((?:(?:{'|'.join(PUBLIC_ROOMS)})\.)?\w+)", code))
    imports = re.findall(r"^from lipsync_nb(\S*) import (.+)$", code, re.MULTILINE)
    for room, names in imports:
        used |= {f"{room}.{name.split()[0]}".lstrip(".") for name in names.split(", ")}
    assert used
    assert used <= set(public_names())
    assert not re.search(r"^import lipsync_nb\.", code, re.MULTILINE)
