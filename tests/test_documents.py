"""The examples of the documents run, each document from its top in a folder of its own."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from builders import write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.__main__ import _parser

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
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(DOCUMENTS[name])
    assert capsys.readouterr().out


def test_documents_have_examples() -> None:
    assert {"README.md", "docs/row-programs.md", "docs/avatars.md", "docs/networks.md",
            "docs/compositing.md", "docs/caches.md", "docs/measuring.md",
            "docs/demo-avatar.md"} <= set(WITH_EXAMPLES)  # fmt: skip
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


@pytest.mark.parametrize(
    "name", [n for n, p in DOCUMENTS.items() if commands(p.read_text("utf-8"))]
)
def test_commands_have_these_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for call in commands(DOCUMENTS[name].read_text(encoding="utf-8")):
        words = shlex.split(call)[1:]
        try:
            assert _parser().parse_args(words).run
        except SystemExit as end:
            pytest.fail(f"{call}: {capsys.readouterr().err}") if end.code else None


@pytest.mark.parametrize("name", DOCUMENTS)
def test_names_are_there(name: str) -> None:
    """Files of the repository, modules of its tools, and public names."""
    text = DOCUMENTS[name].read_text(encoding="utf-8")
    for file in re.findall(r"`([\w-]+(?:/[\w-]+)*/[\w-]+\.(?:py|pyi|md|toml|txt))`", text):
        assert (ROOT / file).exists() or (ROOT / "lipsync_nb" / file).exists(), file
    for module in re.findall(r"python -m (tools[\w.]+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    for names in re.findall(r"`lnb\.([\w.]+)", text):
        thing: object = lnb
        for part in names.split("."):
            thing = getattr(thing, part)


def test_the_picture_of_the_rooms_is_true() -> None:
    text = DOCUMENTS["docs/architecture.md"].read_text(encoding="utf-8")
    drawn = set(re.findall(r"^    (\w+)\[\"", text, re.MULTILINE)) - {"main"}
    rooms = {p.stem for p in (ROOT / "lipsync_nb").iterdir() if not p.name.startswith("__")}
    assert drawn == rooms - {"demo", "py"}


def test_the_readme_is_short() -> None:
    assert len(DOCUMENTS["README.md"].read_text(encoding="utf-8").split()) < 700


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
