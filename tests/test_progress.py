"""One progress bar for renders, benchmarks and sweeps."""

import pytest

import lipsync_nb as lnb


def lines_of(text: str) -> list[str]:
    """What stands in each line of a terminal at the end."""
    return [line.rsplit("\r", 1)[-1].strip() for line in text.strip().split("\n")]


def test_a_render_has_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with lnb.ProgressBar("clip") as bar:
        for done in range(1, 4):
            bar(lnb.Progress(done, 3, 0.1 * done))
    (line,) = lines_of(capfd.readouterr().err)
    assert line.startswith("clip: 100%")
    assert "3/3" in line


def test_runs_that_count_anew_have_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    with lnb.ProgressBar() as bar:
        for label in ("a, first run", "b, first run"):
            for done in (1, 2):
                bar(label, lnb.Progress(done, 2, 0.1 * done))
    first, second = lines_of(capfd.readouterr().err)
    assert first.startswith("a, first run: 100%")
    assert second.startswith("b, first run: 100%")


def test_runs_that_count_on_share_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    with lnb.ProgressBar() as bar:
        for done, label in enumerate(("n_jobs=1", "n_jobs=1", "n_jobs=2", "n_jobs=2"), start=1):
            bar(label, lnb.Progress(done, 4, 0.1 * done))
    (line,) = lines_of(capfd.readouterr().err)
    assert line.startswith("n_jobs=2: 100%")
    assert "4/4" in line
