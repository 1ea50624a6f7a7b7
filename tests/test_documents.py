"""The examples of the documents run, and what they name is there.

Each document's examples run from its top, in a folder of its own.
"""

import ast
import builtins
import re
import shlex
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from keyword import kwlist
from pathlib import Path

import grimp
import pytest
from builders import template_frames, write_synctalk_avatar, write_video
from family_networks import family_generator

import lipsync_nb as lnb
from lipsync_nb.__main__ import _parser, main
from lipsync_nb.types.families import FAMILIES

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
}
WITH_EXAMPLES = [name for name, path in DOCUMENTS.items() if BLOCK.search(path.read_text("utf-8"))]


def examples(path: Path) -> list[tuple[int, str]]:
    """Line numbers and sources of a document's Python blocks."""
    text = path.read_text(encoding="utf-8")
    return [(text.count("\n", 0, m.start(1)), m.group(1)) for m in BLOCK.finditer(text)]


def run(path: Path) -> None:
    """Run a document's Python blocks one after the other; a failure names the document's line."""
    names: dict[str, object] = {"__name__": "__main__"}
    for line, source in examples(path):
        exec(compile("\n" * line + source, str(path), "exec"), names)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the files that the examples name."""
    speech = lnb.demo_speeches()["hello"]
    shutil.copy(speech, tmp_path / f"hello{speech.suffix}")
    shutil.copy(speech, tmp_path / "hello.mp3")
    write_synctalk_avatar(tmp_path / "person")
    write_video(tmp_path / "me.mp4", template_frames(6))
    (tmp_path / "wav2lip.onnx").write_bytes(family_generator(FAMILIES["wav2lip-96"]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(DOCUMENTS[name])
    assert capsys.readouterr().out


def test_pages_that_tell_of_use_have_examples() -> None:
    without = {"CONTRIBUTING.md", "docs/architecture.md", "docs/dependencies.md", "docs/faults.md",
               "docs/int8.md", "docs/live.md", "docs/where-it-runs.md"}  # fmt: skip
    assert set(DOCUMENTS) - set(WITH_EXAMPLES) == without
    assert len(examples(DOCUMENTS["docs/row-programs.md"])) == 3


def test_an_example_that_fails_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("A page.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(path)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (path, 7)


def commands(text: str) -> list[str]:
    """The calls of ``lipsync-nb`` in a document: its shell blocks' lines, and code in sentences."""
    shell = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [part.split("#")[0] for block in shell for part in re.split(r"\n|&&", block)]
    inline = re.findall(r"`(lipsync-nb [^`\n]+)`", text)
    calls = [line.strip().removeprefix(".venv/bin/") for line in [*lines, *inline]]
    return [call for call in calls if call.startswith("lipsync-nb ")]


WITH_COMMANDS = [n for n, p in DOCUMENTS.items() if commands(p.read_text("utf-8"))]


@pytest.mark.parametrize("name", WITH_COMMANDS)
def test_commands_have_these_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for call in commands(DOCUMENTS[name].read_text(encoding="utf-8")):
        words = shlex.split(call)[1:]
        try:
            assert _parser().parse_args(words).run
        except SystemExit as end:
            pytest.fail(f"{call}: {capsys.readouterr().err}") if end.code else None


def test_commands_of_the_readme_run(place: Path) -> None:
    """With the files that are here in place of the words in capitals."""
    (place / "clips.csv").write_text("avatar,speech,out\nperson,hello.mp3,clip.mp4\n")
    known = {"AVATAR": "person", "SPEECH": "hello.mp3", "CLIPS.csv": "clips.csv"}
    more = {
        "prepare": ["--box", "90,60,170,140"],
        "inspect": [],
        "render": ["--max-frames", "3"],
        "batch": ["--max-frames", "3"],
    }
    ran = []
    for call in commands(DOCUMENTS["README.md"].read_text(encoding="utf-8")):
        command, *words = shlex.split(call)[1:]
        if command not in more:
            continue
        names = {"VIDEO.mp4": "me.mp4", "AVATAR": "mine"} if command == "prepare" else known
        words = [names.get(word, word) for word in words]
        assert main([command, *words, *more[command]]) == 0, call
        ran.append(command)
    assert set(ran) == set(more)
    assert (place / "OUT.mp4").is_file()
    assert (place / "clip.mp4").is_file()
    assert len(list((place / "mine" / "full_body_img").iterdir())) == 6


def tool_calls(text: str) -> list[tuple[str, list[str]]]:
    """The calls of this repository's tools in a document: the module, and its options."""
    calls = re.findall(r"python -m (tools[\w.]*)([^\n`#]*)", text)
    return [(module.rstrip("."), re.findall(r"--[\w-]+", rest)) for module, rest in calls]


@pytest.mark.parametrize(
    "name", [n for n, p in DOCUMENTS.items() if tool_calls(p.read_text("utf-8"))]
)
def test_tools_have_these_options(name: str) -> None:
    """Told from their sources: some need libraries that are not always here."""
    for module, options in tool_calls(DOCUMENTS[name].read_text(encoding="utf-8")):
        place = ROOT / module.replace(".", "/")
        files = [place.with_suffix(".py"), place / "__main__.py"]
        source = "".join(file.read_text("utf-8") for file in files if file.exists())
        assert "__main__" in source, module
        for option in options:
            assert f'"{option}"' in source, f"{module} {option}"


def spans(text: str) -> list[str]:
    """What stands in backticks in a document's sentences and tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_are_there(name: str) -> None:
    """In the repository, or in the package."""
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    for span in spans(text):
        if re.fullmatch(r"[\w.*-]+(?:/[\w.*-]+)+|[\w-]+\.(?:py|pyi|md|toml|yml)", span):
            is_of_an_avatar = span.split("/")[0] in AVATARS
            folders = (ROOT, ROOT / "lipsync_nb")
            assert is_of_an_avatar or any(any(f.glob(span)) for f in folders), span
        if re.fullmatch(r"test_\w+", span):
            assert (ROOT / "tests" / f"{span}.py").is_file(), span
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for file in re.findall(r"\b((?:tests|requirements|notebooks)/[\w/-]+\.\w+)", block):
            assert (ROOT / file).is_file(), file


# Files and folders of avatars and of caches.
AVATARS = ("full_body_img", "landmarks", "masks", "cache", "models", "checkpoint", "tuned", "~")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_public_names_are_there(name: str) -> None:
    for names in re.findall(r"`lnb\.([\w.]+)", DOCUMENTS[name].read_text(encoding="utf-8")):
        thing: object = lnb
        for part in names.split("."):
            thing = getattr(thing, part)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_options_take_these_values(name: str) -> None:
    """``field="value"`` in backticks, alone or in ``RenderConfig(...)``."""
    known = {option.name for option in fields(lnb.RenderConfig)}
    for span in spans(DOCUMENTS[name].read_text(encoding="utf-8")):
        for field, value in re.findall(r"\b(\w+)=([\w\"-]+)(?=[,)]|$)", span):
            if field in known and not span.startswith(("lipsync-nb", "--")):
                lnb.RenderConfig(**{field: ast.literal_eval(value)})


@cache
def names_of_the_sources() -> frozenset[str]:
    """Every name in the sources, one-word texts too, and those of modules and Python's own."""
    found = {*dir(builtins), *kwlist}
    for folder in ("lipsync_nb", "tools", "tests"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.name == Path(__file__).name:
                continue
            found |= {file.stem, file.parent.name}
            found |= set(_names(ast.parse(file.read_text(encoding="utf-8"))))
    return frozenset(found)


def _names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        for attribute in ("name", "id", "attr", "arg", "module"):
            value = getattr(node, attribute, None)
            if isinstance(value, str):
                yield from value.split(".")
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from [node.value] if node.value.isidentifier() else node.value.split(",")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_are_of_the_sources(name: str) -> None:
    """A class, a function, a module or an option that was renamed is renamed here too."""
    for span in spans(DOCUMENTS[name].read_text(encoding="utf-8")):
        parts = span.split(".")
        if all(part.isidentifier() for part in parts) and parts[-1] not in SUFFIXES:
            assert set(parts) <= names_of_the_sources() | FOREIGN, span


SUFFIXES = ("mp4", "npy", "npz", "lms", "data", "pyi", "toml")
# An instruction, LLVM's name of a processor, a mode of the published code.
FOREIGN = {"cpuid", "znver4", "ave"}


def reached(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Whatever arrows lead to, from each place that has any."""

    def below(place: str) -> set[str]:
        return {name for end in edges.get(place, set()) for name in {end} | below(end)}

    return {place: below(place) for place in edges}


def test_the_picture_of_the_rooms_is_true() -> None:
    """Every room, every arrow an import, and every import on a way of arrows."""
    text = DOCUMENTS["docs/architecture.md"].read_text(encoding="utf-8")
    rooms = {p.stem for p in (ROOT / "lipsync_nb").iterdir() if not p.name.startswith("__")}
    shown = set(re.findall(r"^    (\w+)\[\"", text, re.MULTILINE))
    assert shown == rooms - {"demo", "py"} | {"main"}
    drawn, real = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for one, other in re.findall(r"^    (\w+) --> (\w+)$", text, re.MULTILINE):
        drawn[one].add(other)
    graph = grimp.build_graph("lipsync_nb", cache_dir=None)
    for module in graph.modules - {"lipsync_nb"}:
        for name in graph.find_modules_directly_imported_by(module) - {"lipsync_nb"}:
            one, other = (m.split(".")[1].strip("_") for m in (module, name))
            if one != other:
                real[one].add(other)
    assert reached(drawn) == reached(real)
    assert all(ends <= real[room] for room, ends in drawn.items())


def test_modules_are_in_their_rooms() -> None:
    text = DOCUMENTS["docs/architecture.md"].read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) >= 10
    for room, told in rows:
        for module in re.findall(r"`(\w+)`", told):
            place = ROOT / "lipsync_nb" / room / module
            assert place.is_dir() or place.with_suffix(".py").is_file(), f"{room}: {module}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    text = DOCUMENTS["README.md"].read_text(encoding="utf-8")
    assert len(text.split()) < 710
    assert set(DOCUMENTS) - {"README.md"} <= set(re.findall(r"\]\(([\w./-]+\.md)\)", text))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    """To files of this repository, and to headings that are there."""
    path = DOCUMENTS[name]
    targets = re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text(encoding="utf-8"))
    for target in targets:
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


def anchors(path: Path) -> set[str]:
    """Names of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
