"""Names and texts from outside are shown as they are in every HTML, and never do anything."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
from builders import tone_speech, write_synctalk_avatar

import lipsync_nb as lnb
from lipsync_nb.config.thread_plan import plan_threads
from lipsync_nb.experiments.golden import Fact, FactTable, Limits, compare_frames
from lipsync_nb.experiments.memory import MemoryRow, MemoryTable
from lipsync_nb.experiments.precision import PrecisionRow
from lipsync_nb.experiments.profiling import NetworkProfile, OperatorRow
from lipsync_nb.experiments.quality import Likeness
from lipsync_nb.experiments.quality_reports import Measure, Moment, QualityReport, Track
from lipsync_nb.experiments.runs import Benchmark, Run, Spread
from lipsync_nb.experiments.sweeps import SweepRow
from lipsync_nb.experiments.tuned import Tuned
from lipsync_nb.footage.preparation import Jitter, Preparation
from lipsync_nb.inspection.findings import Fact as Found
from lipsync_nb.inspection.findings import Finding, Inspection
from lipsync_nb.notebook import charts, displays
from lipsync_nb.notebook.markup import Markup, element, joined
from lipsync_nb.pipeline.timing import StageRow
from lipsync_nb.types.records import Box
from lipsync_nb.widgets.speech_source import speech_card
from tools.lab import browse, chromium

HOSTILE = [
    "<script>window.pwned=1</script>",
    '"><img src=x onerror=window.pwned=1>',
    "' onmouseover='window.pwned=1",
    '" onmouseover="window.pwned=1',
    "</style><svg onload=window.pwned=1>",
    "</title><script>window.pwned=1</script>",
    "--><iframe srcdoc=x></iframe>",
    "&lt;script&gt;window.pwned=1",
    "javascript:window.pwned=1",
    "a\nb<b onclick=window.pwned=1>\n",
    "{title}<u>%s",
]
# Without a dot: what stands behind it would be a suffix.
FOLDER_NAME = "<img src=x onerror=pwned=1>' onmouseover='pwned=1"

# What makes HTML of a text, by the field that shows it.
Maker = Callable[[str], Any]


def bare(kind: type, **values: Any) -> Any:
    """A frozen record with values that its constructor would refuse."""
    made = object.__new__(kind)
    for name, value in values.items():
        object.__setattr__(made, name, value)
    return made


def run_of(name: str, repeat: int = 0, stage: str = "inference") -> Run:
    return Run(name, repeat, 10, 1.0, 0.5, 1.0, 5, "CPU", 2, (StageRow(stage, 1.0, 10),))


def benchmark_of(name: str, environment: dict[str, str] | None = None) -> Benchmark:
    return Benchmark((run_of(name), run_of(name, 1)), environment or {})


def from_a_file(name: str, folder: Path) -> Benchmark:
    return Benchmark.load(benchmark_of(name).save(folder / "bench.json"))


def sweep_of(values: dict[str, Any], reason: str = "") -> lnb.experiments.Sweep:
    runs = () if reason else (run_of(""),)
    row = bare(SweepRow, values=values, config=lnb.RenderConfig(), runs=runs, reason=reason)
    return lnb.experiments.Sweep((row,))


def precision_of(precision: str, reason: str = "") -> lnb.experiments.PrecisionComparison:
    runs = (run_of(""),)
    pictures = np.zeros((1, 320, 320, 3), np.uint8)
    good = Likeness(100.0, 1.0, 0, 0)
    first: Any = PrecisionRow(precision, 1, runs, good, None, pictures, "")  # type: ignore[arg-type]
    other: Any = PrecisionRow("int8", reason=reason or "None.")
    return lnb.experiments.PrecisionComparison((first, other), (0,))


def quality_of(
    text: str = "a", title: str = "b", track: str = "c", clip: str = "d", unit: str = "e"
) -> QualityReport:
    measure = Measure("seam", title, 2.0, unit, "at most", 1.0, text)
    picture = "AAAA"
    moment = Moment("seam", 3, 0.12, 2.0, picture, picture)
    return QualityReport(
        clip, 9, 25.0, (measure,), (moment,), (Track("seam", track, 1.0, (1.0, 2.0)),), (text,)
    )


def profile_of(graph: str = "", kind: str = "", name: str = "", output: str = "") -> NetworkProfile:
    kinds = (OperatorRow(kind, kind, "", 1, 1.0, 1.0),)
    nodes = (OperatorRow(name, "Conv", output, 1, 1.0, 1.0),)
    return NetworkProfile(graph, 1, 1, 1.0, kinds, nodes)


def node_of(kind: str) -> NetworkProfile:
    return NetworkProfile("", 1, 1, 1.0, (), (OperatorRow("", kind, "", 1, 1.0, 1.0),))


def compared(one: str, other: str) -> Any:
    grey = {0: np.zeros((8, 8, 3), np.uint8)}
    return compare_frames(grey, grey, Limits(), (one, other))


def timings_of(stage: str, worker: str = "main") -> lnb.Timings:
    timings = lnb.Timings()
    start = timings._origin

    def work() -> None:
        timings.add(stage, start, start + 0.1, 2)

    thread = threading.Thread(target=work, name=worker)
    thread.start()
    thread.join()
    timings.finish(2)
    return timings


def result_of(path: Path, **values: Any) -> lnb.RenderResult:
    plan = plan_threads(lnb.RenderConfig())
    given = {
        "config": lnb.RenderConfig(),
        "provider": "CPU",
        "batching": "",
        "plan": plan,
        **values,
    }
    return lnb.RenderResult(path, 2, timings_of("inference"), **given)


def speech_of(path: Path) -> lnb.Speech:
    return lnb.Speech(features=np.eye(30, 512, dtype=np.float32), path=path)


def config_of(text: str) -> Any:
    config = lnb.RenderConfig()
    object.__setattr__(config, "preset", text)
    return config


def report_of(title: str, folder: Path) -> str:
    page = lnb.write_report(folder / "page.html", benchmark_of("a"), title=title).read_text("utf-8")
    # Within a page of other HTML the frame's own elements would be lost, its title too.
    return Markup(page.replace("<title>", "<pre>").replace("</title>", "</pre>"))


def inspection_of(path: str = "x", kind: str = "video", **texts: str) -> Inspection:
    fact = Found("frames", texts.get("name", "size"), texts.get("value", "1x1"))
    finding = Finding("frames", "hint", texts.get("found", "small"), texts.get("advice", "more"))
    return Inspection(Path(path), kind, (texts.get("lacks", "boxes"),), (fact,), (finding,))


def grey(caption: str) -> Markup:
    return displays.picture_html(np.zeros((8, 8, 3), np.uint8), caption)


def preparation_of(source: str = "a", boxes_from: str = "b", warning: str = "c") -> Preparation:
    return Preparation(
        Path("out"), Path(source), Fraction(25), 8, 8, (Box(0, 0, 8, 8),), boxes_from,
        Jitter(0, 0, 0), (), (), (), (warning,), np.zeros((8, 8, 3), np.uint8),
    )  # fmt: skip


PLAIN: dict[str, Maker] = {
    "prepared source": lambda t: preparation_of(source=t),
    "prepared boxes from": lambda t: preparation_of(boxes_from=t),
    "prepared warning": lambda t: preparation_of(warning=t),
    "speech card": lambda t: speech_card(replace(speech_of(Path("a")), path=Path(t))),
    "speech card note": lambda t: speech_card(replace(speech_of(Path("a")), notes=(t,))),
    "speech path": lambda t: speech_of(Path("sound") / t),
    "config value": config_of,
    "timings stage": timings_of,
    "timings worker": lambda t: timings_of("inference", t),
    "result path": lambda t: result_of(Path("out") / t),
    "result provider": lambda t: result_of(Path("x"), provider=t),
    "result note": lambda t: result_of(Path("x"), notes=("a", t)),
    "result shortfall": lambda t: result_of(Path("x"), shortfalls=("a", t)),
    "benchmark name": benchmark_of,
    "benchmark key": lambda t: benchmark_of("a", {t: "x"}),
    "benchmark value": lambda t: benchmark_of("a", {"x": t}),
    "sweep field": lambda t: sweep_of({t: 1}),
    "sweep value": lambda t: sweep_of({"x": t}),
    "sweep first of two fields": lambda t: sweep_of({t: 1, "b": 2}),
    "sweep second of two fields": lambda t: sweep_of({"a": 1, t: 2}),
    "sweep third field": lambda t: sweep_of({"a": 1, "b": 2, t: 3}),
    "sweep values of two": lambda t: sweep_of({"a": t, "b": t}),
    "sweep third value": lambda t: sweep_of({"a": 1, "b": 2, "c": t}),
    "sweep reason": lambda t: sweep_of({"a": 1}, t),
    "story step": lambda t: lnb.experiments.Ablation(benchmark_of(t)),
    "precision": precision_of,
    "precision reason": lambda t: precision_of("fp32", t),
    "tuned name": lambda t: Tuned(lnb.RenderConfig(), {t: Spread(1, 1, 1)}, 1.0, {}),
    "profile graph": lambda t: profile_of(graph=t),
    "profile kind": lambda t: profile_of(kind=t),
    "profile node": lambda t: profile_of(name=t),
    "profile node's kind": node_of,
    "profile output": lambda t: profile_of(output=t),
    "quality note": quality_of,
    "quality measure": lambda t: quality_of(title=t),
    "quality line": lambda t: quality_of(track=t),
    "quality clip": lambda t: quality_of(clip=t),
    "quality unit": lambda t: quality_of(unit=t),
    "memory pixels": lambda t: MemoryTable((MemoryRow(1, t, 1, None, 1),)),  # type: ignore[arg-type]
    "golden name": lambda t: compared(t, "now"),
    "new name": lambda t: compared("golden", t),
    "fact name": lambda t: FactTable((Fact(t, 1, 1),)),
    "fact found": lambda t: FactTable((Fact("a", t, 1),)),
    "fact expected": lambda t: FactTable((Fact("a", 1, t),)),
    "any object": displays.html_of,
    "inspection path": lambda t: inspection_of(f"of/{t}"),
    "inspection kind": lambda t: inspection_of(kind=t),
    "inspection lacks": lambda t: inspection_of(lacks=t),
    "fact's name": lambda t: inspection_of(name=t.strip()),
    "fact's value": lambda t: inspection_of(value=t),
    "found": lambda t: inspection_of(found=t),
    "advice": lambda t: inspection_of(advice=t),
    "caption": grey,
    "stage bars": lambda t: charts.stage_bars({t: (StageRow("encode", 1.0, 2),)}),
    "figure bars": lambda t: charts.figure_bars({t: (1.0, 1.0, 1.0)}, "FPS"),
    "unit": lambda t: charts.figure_bars({"a": (1.0, 1.0, 1.0)}, t),
    "heat map": lambda t: charts.heat_map({(t, "a"): 1.0, ("b", t): None}, "x", "y", 1.0),
    "table head": lambda t: charts.table(["a", t], []),
    "table cell": lambda t: charts.table(["a"], [[t]]),
    "note": lambda t: charts.note("a", t, is_error=True),
    "page": lambda t: charts.page(t),
    "heading": lambda t: charts.heading(t),
}


@pytest.fixture(scope="module")
def makers(avatar: lnb.Avatar, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Maker]:
    """All fields: those of records, and those that need an avatar or a file."""
    folder = tmp_path_factory.mktemp("safety")
    return {
        **PLAIN,
        "avatar name": lambda t: replace(avatar, name=t),
        "avatar boxes": lambda t: replace(avatar, boxes_from=t),
        "avatar note": lambda t: replace(avatar, notes=("a", t)),
        "avatar generator": lambda t: replace(avatar, generator=Path("models") / t),
        "avatar encoder": lambda t: replace(avatar, audio_encoder=Path("models") / t),
        "report title": lambda t: report_of(t, folder),
        "benchmark from a file": lambda t: from_a_file(t, folder),
    }


def html_of(thing: Any) -> str:
    return str(thing if isinstance(thing, Markup) else thing.to_html())


class Tags(HTMLParser):
    """The elements and attributes of HTML, and all that it shows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.shown: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        self.shown += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def shown_name(field: str, text: str) -> str:
    """What a field shows of a text: of a path, for most, the last name alone."""
    if field == "fact's name":
        return text.strip()
    paths = ("inspection path", "speech path", "speech card", "avatar generator", "avatar encoder")
    is_path, wholes = field in paths, ("result path", "prepared source")
    return Path(text).name if is_path else str(Path(text)) if field in wholes else text


@pytest.mark.parametrize("text", HOSTILE)
def test_texts_make_no_elements_and_are_shown(text: str, makers: dict[str, Maker]) -> None:
    harmless = "".join(letter if letter in "/\n" else "x" for letter in text)
    for field, make in makers.items():
        found, plain = Tags(html_of(make(text))), html_of(make(harmless))
        assert found.tags == Tags(plain).tags, field
        # Nothing of our own is escaped.
        assert "&lt;" not in plain, field
        assert any(shown_name(field, text) in shown for shown in found.shown), field


def test_elements_escape_all_but_markup() -> None:
    text = element("p", "1 < 2", element("br"), Markup("<i></i>"), class_="a\"b'c", stroke_width=2)
    assert text == '<p class="a&quot;b&#x27;c" stroke-width="2">1 &lt; 2<br><i></i></p>'
    assert joined(["<", Markup("<b>")]) == "&lt;<b>"
    # What is put together in another way is text again.
    assert joined([Markup("<b>") + "<i>"]) == "&lt;b&gt;&lt;i&gt;"
    assert element("p", "\udc80") == "<p>\\udc80</p>"


def test_addresses_are_data_alone() -> None:
    for address in ("javascript:alert(1)", "JaVaScRiPt:x", "\tjavascript:x", "http://a.b/c", "x"):
        assert element("a", "x", href=address) == "<a>x</a>"
    assert element("img", src="data:image/png;base64,AA==") == (
        '<img src="data:image/png;base64,AA==">'
    )


def html_values(widget: Any) -> Iterator[str]:
    """The values of all HTML widgets within one."""
    if isinstance(widget, ipywidgets.HTML):
        yield widget.value
    for child in getattr(widget, "children", ()):
        yield from html_values(child)


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_synctalk_avatar(tmp_path_factory.mktemp("names") / FOLDER_NAME, num_frames=5)


@pytest.fixture(scope="module")
def widget_html(hostile_folder: Path) -> list[str]:
    """What the widgets show after renders from and to hostile names, and after failed ones."""
    speech = tone_speech(hostile_folder.parent / f"{FOLDER_NAME}.wav", 0.5)
    out = hostile_folder.parent / f"{FOLDER_NAME}.mp4"
    studio = lnb.Studio(hostile_folder, config=lnb.RenderConfig(max_frames=3), out=out)
    studio.panel.speech.value, studio.panel.path.value = "(path below)", str(speech)
    values: list[str] = []
    try:
        for path in (out, hostile_folder.parent / f"{FOLDER_NAME}2"):
            studio.panel.out.value = str(path)
            studio.panel.start()
            assert studio.panel.wait(120)
            assert studio.panel.job.state == "done", studio.panel.job.error
            values += html_values(studio)
        studio.timings.add(result_of(out, config=config_of(FOLDER_NAME)))
        values += html_values(studio)
        for field in (studio.panel.path, studio.panel.avatar):
            field.value = str(hostile_folder.parent / f"{FOLDER_NAME} is not there")
            studio.panel.start()
            assert studio.panel.wait(120)
            assert studio.panel.job.state == "failed"
            values += html_values(studio)
        studio.form._on_control({})
    finally:
        studio.close()
    return values


@pytest.mark.skipif(chromium() is None, reason="no Chromium here")
def test_nothing_happens_in_a_browser(
    makers: dict[str, Maker], widget_html: list[str], hostile_folder: Path, tmp_path: Path
) -> None:
    snippets = [
        (f"{field}: {text}", shown_name(field, text), html_of(make(text)))
        for field, make in makers.items()
        for text in HOSTILE
    ]
    avatar = lnb.load_avatar(hostile_folder)
    snippets.append(("avatar folder", FOLDER_NAME, avatar.to_html()))
    named = [html for html in widget_html if "onerror=pwned" in html]
    snippets += [("widget", FOLDER_NAME, html) for html in named]
    assert len(named) >= 6
    assert len(snippets) > 500
    page = tmp_path / "page.html"
    shown = "".join(f"<section>{html}</section>\n" for _, _, html in snippets)
    page.write_text(f'<!doctype html><meta charset="utf-8">{shown}', encoding="utf-8")
    report = lnb.write_report(tmp_path / "report.html", avatar, title=HOSTILE[5])
    with browse() as tab:
        for path in (page, report):
            tab.page.goto(f"file://{path}")
            assert tab.page.evaluate(_USED) == []
            assert tab.page.evaluate("() => window.pwned") is None
        assert tab.page.title() == HOSTILE[5]
        tab.page.goto(f"file://{page}")
        found = tab.page.evaluate(_SHOWN)
        assert len(found) == len(snippets)
        for (label, text, _), texts in zip(snippets, found, strict=True):
            assert any(text in shown for shown in texts), label
        assert tab.errors == []
        assert tab.outside == []


# Moves over and clicks all there is; gives the addresses that are not data.
_USED = """async () => {
    for (const e of document.querySelectorAll('body *'))
        for (const kind of ['mouseover', 'mouseenter', 'click', 'focus'])
            if (!(kind === 'click' && e.closest('a')))
                e.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
    await new Promise(done => setTimeout(done, 500));
    return [...document.querySelectorAll('[href], [src], [action], [srcdoc]')]
        .map(e => e.getAttribute('href') || e.getAttribute('src') || e.outerHTML)
        .filter(text => !text.startsWith('data:'));
}"""
# What each section shows, in its text and in attributes that are shown.
_SHOWN = """() => [...document.querySelectorAll('body > section')].map(section =>
    [section.textContent, ...[...section.querySelectorAll('[alt], [title], [download]')].flatMap(
        e => ['alt', 'title', 'download'].map(name => e.getAttribute(name) || ''))])"""


def test_json_of_results_is_no_script(tmp_path: Path) -> None:
    """Timings are linked as files: within the page they are base64."""
    result = result_of(tmp_path / "x.mp4")
    result.timings.add(HOSTILE[0], 0.0, 1.0, 1)
    view = lnb.widgets.TimingView()
    view.add(result, HOSTILE[0])
    assert json.loads(result.timings.to_json())["spans"][1]["stage"] == HOSTILE[0]
    values = list(html_values(view))
    assert any("&lt;script&gt;" in value for value in values)
    assert not any("<script" in value for value in values)
    view.close()
