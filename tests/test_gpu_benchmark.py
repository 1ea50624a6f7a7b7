"""The benchmark for GPUs runs end to end on the processor's provider, with the same graphs."""

import json
from pathlib import Path

import pytest

from tools.benchmarks.gpu import Figure, main, ratios


def test_a_short_run_writes_all_files(
    synctalk_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = ["verify", "ram", "mp4", "encoder", "ratio"]
    main(["--provider", "cpu", "--frames", "9", "--width", "tiny", "--out", str(tmp_path),
          "--avatar", str(synctalk_folder), "--parts", *parts])  # fmt: skip
    names = sorted(file.name for file in tmp_path.iterdir())
    assert len(names) == 3
    assert names[2].endswith("_gpu_timeline.json")
    data = json.loads((tmp_path / names[0]).read_text())
    assert data["failed"] == []
    figures = {(f["part"], f["name"]): f for f in data["figures"]}
    checked = [f for (part, _), f in figures.items() if part == "verify"]
    assert len(checked) == 6
    for figure in checked:
        assert figure["more"]["largest"] <= 2
        assert figure["more"]["psnr_box"] > 55
    assert {part for part, _ in figures} == set(parts)
    assert all(figure["seconds"] > 0 for figure in data["figures"])
    text = (tmp_path / names[1]).read_text()
    assert "times the origin's" in text
    assert "cores" in text
    assert text in capsys.readouterr().out


def test_the_network_alone_is_swept(synctalk_folder: Path, tmp_path: Path) -> None:
    main(["--provider", "cpu", "--frames", "4", "--width", "tiny", "--out", str(tmp_path),
          "--avatar", str(synctalk_folder), "--parts", "network"])  # fmt: skip
    (file,) = tmp_path.glob("*_gpu.json")
    figures = json.loads(file.read_text())["figures"]
    names = [figure["name"] for figure in figures]
    assert len(names) == len(set(names)) == 15
    assert sum("batch 8, streams 2" in name for name in names) == 8


def test_ratios_are_of_one_round() -> None:
    figures = [
        Figure("ratio", name, 100, 100 / fps)
        for pair in ((10, 50), (20, 60), (10, 80))
        for name, fps in zip(("origin", "mp4"), pair, strict=True)
    ]
    assert ratios(figures) == ["mp4: 60.00 (50.00-80.00) FPS, 5.00 (3.00-8.00) times the origin's"]
