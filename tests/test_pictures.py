"""Charts as pictures, what widgets leave, and what is drawn of truths and networks."""

import base64
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import lipsync_nb as lnb
from lipsync_nb.errors import NetworkError, SpeechError
from lipsync_nb.notebook import charts, network_picture, truths
from lipsync_nb.notebook.markup import Markup
from lipsync_nb.notebook.pictures import pictured
from lipsync_nb.pipeline.compositing import PlanarFrame

SVG = "{http://www.w3.org/2000/svg}"


def drawings(html: str) -> list[ElementTree.Element]:
    """The drawings within the pictures of HTML; not well-formed ones are an error."""
    sources = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    return [ElementTree.fromstring(base64.b64decode(source)) for source in sources]


@pytest.mark.parametrize(
    "name", ["fast", "<b>&\"'</svg>", "a\0\x0b\x1f\ud800\ufffe\tb\n", "ə ŋ 日"]
)
def test_a_chart_becomes_a_picture_that_says_the_same(name: str) -> None:
    html = charts.page(charts.figure_bars({name: (2.0, 1.0, 3.0)}, "FPS"))
    (svg,) = drawings(html)
    assert "<svg" not in html
    texts = ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]
    assert texts[1] == "2.0 FPS"
    (alt,) = re.findall(r'alt="([^"]*)"', html)
    assert unescape(alt).startswith("bars, FPS: ")
    assert "2.0 FPS" in alt
    kept = re.sub("[\0\x0b\x1f\ufffe]", "\ufffd", name.replace("\ud800", "\\ud800"))
    assert texts[0] == kept


def test_a_long_name_is_cut_in_the_chart_and_whole_in_its_text() -> None:
    name = 60 * "b"
    html = charts.page(charts.figure_bars({name: (1.0, 1.0, 1.0)}, "FPS"))
    (svg,) = drawings(html)
    assert f"{39 * 'b'}…" in "".join(svg.itertext())
    assert f": {name}, " in html


def test_pictures_have_a_card_of_their_own() -> None:
    """Letters on paper, whatever the page's colours; nothing of the page is asked for."""
    page = charts.page(charts.waveform([(-0.5, 0.5)] * 9, 2.0, mark=(0.5, 1.0, 0.7)))
    (svg,) = drawings(page)
    card = next(svg.iter(f"{SVG}rect"))
    left, top, width, height = map(float, svg.attrib["viewBox"].split())
    assert (float(card.attrib["width"]), float(card.attrib["height"])) == (width - 1, height - 1)
    assert (float(card.attrib["x"]), float(card.attrib["y"])) == (left + 0.5, top + 0.5)
    assert "var(" not in ElementTree.tostring(svg, "unicode")
    # What is not ours to read stays as it is.
    assert pictured(Markup("<svg><text>x</text></svg>")) == "<svg><text>x</text></svg>"


def test_a_frame_in_the_order_of_other_libraries() -> None:
    data = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    rgb = lnb.Frame(0, 0, 0.0, data).rgb
    assert rgb.flags.c_contiguous
    assert np.array_equal(rgb[..., 0], data[..., 2])
    assert np.array_equal(rgb[..., 2], data[..., 0])
    planar = PlanarFrame(0, 0, 0.0, np.full((6, 4), 128, np.uint8))
    assert np.array_equal(planar.rgb, planar.data[..., ::-1])


def test_the_truth_of_the_demo_is_drawn_over_its_waveform() -> None:
    speech = lnb.load_speech(lnb.demo_speeches()["hello"])
    truth = truths.read_truth(speech)
    seconds = [begin for _, begin in truth.phonemes]
    assert seconds == sorted(seconds)
    assert seconds[-1] < speech.duration_seconds
    # "Hello": the lips are shut in the pause after it, and open in its vowels.
    names = [name for name, _ in truth.phonemes]
    assert names[:5] == ["h", "ə", "l", "oʊ", ""]
    opening = {n: truth.opening[int((s + 0.06) * 25)] for n, s in truth.phonemes[:6]}
    assert opening["oʊ"] > 0.3
    assert truth.opening[int(0.85 * 25)] < 0.05
    shown = lnb.notebook.show_truth(speech)
    assert str(shown) == "truth of hello.flac: 85 phonemes, mouth opening of 234 frames"
    (svg,) = drawings(shown.to_html())
    texts = ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]
    spoken = [name for name in names if name]
    assert [text for text in texts if text in spoken] == spoken
    # 9.4 s in lines of 2.4 s.
    assert len(list(svg.iter(f"{SVG}polyline"))) == 4


def test_a_speech_without_truth_says_so(speech: lnb.Speech, tmp_path: Path) -> None:
    with pytest.raises(SpeechError, match=r"tone\.wav: found no truth, expected a file NAME"):
        lnb.notebook.show_truth(speech)
    path = tmp_path / "a.wav"
    path.with_suffix(".truth.npz").write_bytes(b"no arrays")
    with pytest.raises(SpeechError, match=r"a\.truth\.npz: found no truth .*, expected arrays"):
        truths.read_truth(lnb.Speech(features=np.zeros((9, 512), np.float32), path=path))


def test_the_network_is_drawn_with_its_shapes() -> None:
    avatar = lnb.load_avatar("demo")
    levels = network_picture.read_levels(avatar)
    assert levels.picture[:2] == ((6, 320, 320), (16, 320, 320))
    assert levels.sound == ((32, 16, 16), (128, 16, 16), (256, 10, 10))
    assert levels.both[-2:] == ((8, 320, 320), (3, 320, 320))
    assert levels.skips == {320, 160, 80, 40, 20, 10}
    (svg,) = drawings(lnb.notebook.show_network(avatar).to_html())
    texts = {"".join(text.itertext()) for text in svg.iter(f"{SVG}text")}
    assert {"6x320x320", "256x10x10", "64x20x20", "3x320x320"} <= texts


def test_a_file_that_is_no_such_network_is_named(avatar: lnb.Avatar) -> None:
    own = lnb.load_avatar(avatar.path, generator=lnb.demo_folder() / "models/audio_encoder.onnx")
    with pytest.raises(NetworkError, match=r"audio_encoder\.onnx: found no such inputs"):
        lnb.notebook.show_network(own)


def outputs(*cells: str) -> list[list[Any]]:
    """What cells of a notebook show."""
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120).execute()
    return [cell.outputs for cell in notebook.cells]


def test_what_a_notebook_keeps(synctalk_folder: Path, speech_file: Path, tmp_path: Path) -> None:
    """One line of progress, without a widget; and a panel's last result, renewed in its place."""
    load = f"""
import time
import lipsync_nb as lnb
from lipsync_nb.system.steps import told
avatar, speech = lnb.load_avatar({str(synctalk_folder)!r}), lnb.load_speech({str(speech_file)!r})
config = lnb.RenderConfig(max_frames=6)
"""
    bar = f"""
with lnb.ProgressBar("clip") as bar:
    list(told("waiting", map(time.sleep, 8 * [0.1]), 8))
    for name in "ab":
        lnb.render(avatar, speech, {str(tmp_path)!r} + f"/{{name}}.mp4", config, progress=bar)
"""
    panel = f"""
panel = lnb.widgets.RunPanel(lambda: config, out={str(tmp_path / "c.mp4")!r})
panel.avatar.value, panel.speech.value = {str(synctalk_folder)!r}, "(path below)"
panel.path.value = {str(speech_file)!r}
panel
"""
    run = "panel.start(); print(panel.wait(100), panel.job.state)"
    _, line, shown, done = outputs(load, bar, panel, run)
    assert re.fullmatch(r"2 runs, 12 frames in \d+\.\d s", line[0].data["text/plain"])
    assert len(line) == 1
    assert set(line[0].data) == {"text/plain", "text/html"}
    widget, kept = (output.data for output in shown)
    assert "application/vnd.jupyter.widget-view+json" in widget
    assert widget["text/html"] == ""
    assert set(kept) == {"text/plain", "text/html"}
    assert 'alt="a frame of c.mp4: 6 frames on CPUExecutionProvider; with ' in kept["text/html"]
    assert "settings: max_frames=6" in kept["text/html"]
    assert done[0].text == "True done\n"
