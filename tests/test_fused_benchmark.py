"""The benchmark of the row programs: what it runs, how it takes turns, what it writes."""

import json
from pathlib import Path

import pytest

from lipsync_nb.experiments.environment import environment
from tools.benchmarks.fused import Figure, main, measure, table


def test_a_short_run_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--frames", "4", "--repeats", "1", "--width", "tiny", "--out", str(tmp_path)])
    data_file, text_file = sorted(tmp_path.iterdir())
    date = environment()["date"].split()[0]
    assert text_file.name.startswith(f"{date}_{environment()['cores']}-cores_")
    assert (data_file.stem, data_file.suffix) == (text_file.stem, ".json")
    data = json.loads(data_file.read_text())
    assert data["environment"]["instructions"] == environment()["instructions"]
    assert (data["width"], data["num_frames"]) == ("tiny", 4)
    names = [(figure["part"], figure["name"]) for figure in data["figures"]]
    # The first round does not count; the second goes backwards.
    assert names[:2] == [("render", "fused"), ("render", "streamed")]
    assert names[-2:] == [("network", "fused"), ("network", "plain")]
    assert {figure["repeat"] for figure in data["figures"]} == {1}
    assert all(figure["seconds"] > 0 < figure["cpu_seconds"] for figure in data["figures"])
    text = text_file.read_text()
    assert capsys.readouterr().out == f"{text}\n"
    assert text.startswith("python -m tools.benchmarks.fused --frames 4 --repeats 1 --width tiny\n")
    assert f"instructions {environment()['instructions']}" in text


def test_contenders_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []

    def contender(name: str) -> tuple[float, float]:
        order.append(name)
        return float(len(order)), 0.5

    figures = measure("render", {n: (lambda n=n: contender(n)) for n in "ab"}, 3)
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert [(figure.name, figure.repeat, figure.seconds) for figure in figures] == [
        ("b", 1, 3), ("a", 1, 4), ("a", 2, 5), ("b", 2, 6), ("b", 3, 7), ("a", 3, 8),
    ]  # fmt: skip


def test_ratios_are_of_medians_within_each_repeat() -> None:
    pairs = [(0.040, 0.020), (0.060, 0.020), (0.050, 0.020)]
    figures = [
        Figure("render", name, repeat, seconds, 2 * seconds)
        for repeat, pair in enumerate(pairs, start=1)
        for name, seconds in zip(("streamed", "fused"), pair, strict=True)
    ]
    _, streamed, fused = table(figures)
    assert streamed.split() == [
        "streamed", "50.00", "(40.00-60.00)", "100.00", "(80.00-120.00)", "1.00", "(1.00-1.00)",
    ]  # fmt: skip
    assert fused.split()[-2:] == ["2.50", "(2.00-3.00)"]
