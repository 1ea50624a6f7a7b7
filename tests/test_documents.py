"""The examples of the documents run, each document from its top in a folder of its own."""

import re
import shutil
from pathlib import Path

import pytest
from builders import write_synctalk_avatar

import lipsync_nb as lnb

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
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
    assert {"README.md", "docs/row-programs.md"} <= set(WITH_EXAMPLES)
    assert len(examples(DOCUMENTS["docs/row-programs.md"])) == 3


def test_an_example_that_fails_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("A page.\n\n```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        run(path)
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno) == (path, 7)


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
