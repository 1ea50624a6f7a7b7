"""Tuning: what is tried, what is remembered, which is chosen; never a speed."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import pytest

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.config.render_config import option_choices
from lipsync_nb.errors import BenchmarkError, NetworkError
from lipsync_nb.experiments import autotune, last_tuned
from lipsync_nb.experiments.candidates import candidates, name_of
from lipsync_nb.experiments.runs import Spread
from lipsync_nb.experiments.search import Search
from lipsync_nb.experiments.tuned import Tuned
from lipsync_nb.system.kept_files import digest_of
from lipsync_nb.system.limits import available_cores

FRAMES = 6


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's cache of the test's own."""
    monkeypatch.setenv("LIPSYNC_NB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def searched(found: list[lnb.RenderConfig], base: lnb.RenderConfig) -> dict[str, set[object]]:
    """The values of each field that differs from the base's somewhere."""
    values = {name: {getattr(config, name) for config in found} for name in vars(base)}
    return {name: those for name, those in values.items() if those != {getattr(base, name)}}


def test_a_search_is_remembered(avatar: lnb.Avatar) -> None:
    assert last_tuned() == lnb.RenderConfig()
    base = lnb.RenderConfig(crf=30)
    found = autotune(avatar, base=base, max_frames=FRAMES, seconds=600)
    assert found.config.crf == 30
    assert found.seconds > 0
    assert set(found.figures) == {name_of(config) for config in candidates(base, available_cores())}
    assert (found.untried, found.notes, found.unit) == ((), (), "FPS")
    assert found.done_trials == found.planned_trials > len(found.figures)
    medians = [speed.median for speed in found.figures.values()]
    assert medians == sorted(medians, reverse=True)
    best = next(iter(found.figures.values()))
    assert found.figures[name_of(found.config)].ties_with(best)
    again = autotune(avatar, base=base, max_frames=FRAMES)
    assert again == replace(found, seconds=0.0)
    assert last_tuned() == found.config
    assert "remembered" in str(again)


def test_what_is_tried_for_steady_speed() -> None:
    """What the documents say it searches; the configuration's other fields are the base's."""
    base = lnb.RenderConfig(crf=30)
    found = candidates(base, 2)
    assert len({name_of(config) for config in found}) == len(found)
    assert found[0] == replace(base, batch_size=1)
    assert searched(found, base) == {
        "streams": {0, 1},
        "fuse": {False, True},
        "feature_cache": {"auto", "off"},
        "overlap": {False, True},
        "n_jobs": {1, 2},
        "batch_size": {1, 2, 4, 8},
    }
    one_core = candidates(replace(base, fuse=False), 1)
    assert not any(config.fuse or config.n_jobs > 1 or config.streams for config in one_core)


def test_what_is_tried_for_a_first_clip() -> None:
    base = lnb.RenderConfig(crf=30)
    found = candidates(base, 2, "first-clip")
    # Where time is short, at least this one is tried.
    assert found[0] == base
    assert searched(found, base) == {
        "streams": {0, 1},
        "fuse": {False, True},
        "feature_cache": {"auto", "off"},
        "n_jobs": {1, 2},
    }
    other = candidates(replace(base, feature_cache="off"), 2, "first-clip")
    assert {config.feature_cache for config in other} == {"auto", "off"}


@pytest.mark.parametrize("target", ["steady", "first-clip"])
def test_what_changes_the_output_is_tried_where_it_is_allowed(target: str) -> None:
    base = lnb.RenderConfig(preset="veryfast")
    plain = candidates(base, 2, target)
    assert not {"precision", "preset"} & set(searched(plain, base))
    both = searched(candidates(base, 2, target, ["precision", "preset"]), base)
    assert both["precision"] == {"fp32", "int8"}
    # Slower ones than the base's are never faster.
    assert both["preset"] == set(option_choices("preset")[:3])
    one = searched(candidates(base, 2, target, ["precision"]), base)
    assert (one["precision"], "preset" in one) == ({"fp32", "int8"}, False)
    cuda = searched(candidates(base, 2, target, ["precision"], has_cuda=True), base)
    assert cuda["precision"] == {"fp32", "fp16"}
    raw = replace(base, prepare=False)
    assert "precision" not in searched(candidates(raw, 2, target, ["precision"]), raw)
    for config in candidates(base, 2, target, ["precision", "preset"]):
        assert name_of(config).count("int8") == (config.precision == "int8")


def test_precision_and_preset_are_tried_in_renders(avatar: lnb.Avatar, speech_file: Path) -> None:
    found = autotune(
        avatar, allow=["precision", "preset"], speech=speech_file, max_frames=3, seconds=600
    )
    assert {name for name in found.figures if "int8" in name and "ultrafast" in name}
    assert found.untried == ()
    # Another permission is another search, and this one is not what is found for it.
    assert autotune(avatar, max_frames=3, seconds=1e-6).seconds > 0
    assert last_tuned().precision == "fp32"


# What each Python that starts does at its end: it keeps the videos of its job.
WITNESS = """
import atexit, glob, json, os, shutil, sys

def witness():
    if "one_clip" in sys.argv[0]:
        for file in glob.glob(json.loads(sys.argv[1])["out"] + "/*.mp4"):
            shutil.copy(file, os.path.join(FOLDER, f"{os.getpid()}.mp4"))

atexit.register(witness)
"""


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.fixture
def videos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Folder that gets a copy of what each process renders, named by its number."""
    folder = tmp_path / "videos"
    folder.mkdir()
    script = WITNESS.replace("FOLDER", repr(str(folder)))
    (tmp_path / "sitecustomize.py").write_text(script, encoding="utf-8")
    paths = [str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    return folder


def test_first_clips_are_processes_of_their_own(
    avatar: lnb.Avatar, speech_file: Path, videos: Path
) -> None:
    seen: list[lnb.Progress] = []
    found = autotune(
        avatar, target="first-clip", speech=speech_file, max_frames=3, seconds=1e-6,
        progress=lambda name, progress: seen.append(progress),
    )  # fmt: skip
    # One prepares, and one is measured; each makes a whole video.
    files = list(videos.iterdir())
    assert len(files) == 2
    assert [count_frames(file) for file in files] == [3, 3]
    (seconds,) = found.figures.values()
    # A process that imports this package takes longer than 50 ms.
    assert seconds.low > 0.05
    assert [progress.done for progress in seen] == [1, 2, 3, 4, 5, 6]
    assert {progress.total for progress in seen} == {seen[0].total}
    assert seen[0].total > 3 * found.planned_trials
    assert seen[-1].eta_seconds > 0
    assert (found.done_trials, found.unit) == (1, "wall s")
    # Each target remembers its own.
    assert last_tuned("first-clip") == found.config
    assert last_tuned() == lnb.RenderConfig()
    with pytest.raises(BenchmarkError, match="target: found 'last'"):
        last_tuned("last")


def test_all_candidates_of_a_first_clip_are_tried(
    avatar: lnb.Avatar, speech_file: Path, videos: Path
) -> None:
    found = autotune(avatar, target="first-clip", speech=speech_file, max_frames=2, seconds=600)
    wanted = candidates(lnb.RenderConfig(), available_cores(), "first-clip")
    assert set(found.figures) == {name_of(config) for config in wanted}
    # Features kept or not, fused or not: each has a process that prepares.
    assert len(list(videos.iterdir())) == found.done_trials + 4
    assert found.config in wanted
    assert found.figures[name_of(found.config)].ties_with(next(iter(found.figures.values())))


def test_a_process_that_fails_is_one_sentence(avatar: lnb.Avatar, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"nowhere\.wav: no such"):
        autotune(avatar, target="first-clip", speech=tmp_path / "nowhere.wav", max_frames=3)


class Told:
    """Trials whose figures are told: what a search makes of them."""

    def __init__(self, figures: dict[str, list[float]], sign: int, is_lasting: bool) -> None:
        self.figures, self.sign, self.is_lasting, self.order = figures, sign, is_lasting, []

    def group(self, config: lnb.RenderConfig) -> object:
        return config.fuse

    def run(self, name: str, config: lnb.RenderConfig, number: int, progress: object) -> float:
        self.order.append((name, number))
        return self.figures[name].pop(0) if number else -1.0

    def score(self, figure: float) -> float:
        return self.sign * figure


def search(
    figures: dict[str, list[float]], sign: int = 1, is_lasting: bool = True
) -> tuple[Tuned, Told]:
    """Candidates of these names, in this order; the last has a group of its own."""
    configs = {
        name: lnb.RenderConfig(batch_size=1 + i, fuse=i < len(figures) - 1)
        for i, name in enumerate(figures)
    }
    trials = Told({name: list(values) for name, values in figures.items()}, sign, is_lasting)
    return Search("steady", trials, configs, 600, None).run(), trials


FIVE = {"a": [5], "b": [9, 9, 9], "c": [4], "d": [3], "e": [8, 8, 8]}


def test_the_slower_half_drops_out() -> None:
    found, trials = search(FIVE)
    assert trials.order == [
        ("a", 0), ("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 0), ("e", 1),
        ("b", 1), ("e", 1), ("b", 1), ("e", 1),
    ]  # fmt: skip
    assert list(found.figures) == ["b", "e", "a", "c", "d"]
    assert found.config.batch_size == 2
    assert (found.done_trials, found.planned_trials) == (9, 9)


def test_what_another_group_drove_out_is_prepared_again() -> None:
    _, trials = search(FIVE, is_lasting=False)
    assert trials.order[5:] == [
        ("e", 0), ("e", 1), ("b", 0), ("b", 1), ("e", 0), ("e", 1), ("b", 0), ("b", 1),
        ("e", 0), ("e", 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("figures", "sign", "chosen"),
    [
        ({"a": [1, 1, 1], "b": [2, 2, 2], "c": [3, 3, 3]}, 1, 3),
        ({"a": [1, 1, 1], "b": [2, 2, 2], "c": [3, 3, 3]}, -1, 1),
        # Two that tie: the first is plainer.
        ({"a": [7, 9, 8], "b": [8.5, 8.5, 8.5], "c": [1]}, 1, 1),
        # One that dropped out is not chosen for a lucky tie.
        ({"a": [7], "b": [8, 6, 9], "c": [9, 9, 9]}, 1, 2),
    ],
    ids=["more", "fewer", "tie", "dropped out"],
)
def test_the_best_of_what_was_measured_is_chosen(
    figures: dict[str, list[float]], sign: int, chosen: int
) -> None:
    found, _ = search(figures, sign)
    assert found.config.batch_size == chosen


def _older(entries: dict[str, object]) -> dict[str, object]:
    """As the second search left it."""
    body = {name: entries[name] for name in ("config", "environment")}
    body |= {"speeds": entries["figures"], "search": 2}
    return {"kind": entries["kind"], "version": entries["version"], **body} | {
        "digest": digest_of(body)
    }


def _first(entries: dict[str, object]) -> dict[str, object]:
    """As the first search left it, which had no number."""
    older = _older(entries)
    body = {name: older[name] for name in ("config", "speeds", "environment")}
    return {"kind": older["kind"], "version": older["version"], **body} | {
        "digest": digest_of(body)
    }


@pytest.mark.parametrize("rewrite", [_older, _first])
def test_what_an_older_search_kept_is_found_anew(
    avatar: lnb.Avatar, cache: Path, rewrite: Callable[[dict[str, object]], dict[str, object]]
) -> None:
    """Without a word: warnings are errors here."""
    base = lnb.RenderConfig(crf=30)
    autotune(avatar, base=base, max_frames=FRAMES, seconds=1e-6)
    assert last_tuned().crf == 30
    kept = list(cache.rglob("tuned/*.json"))
    assert len(kept) == 2
    for file in kept:
        file.write_text(json.dumps(rewrite(json.loads(file.read_text()))))
    assert last_tuned() == lnb.RenderConfig()
    assert autotune(avatar, base=base, max_frames=FRAMES, seconds=1e-6).seconds > 0
    assert last_tuned().crf == 30


def test_a_search_stops_in_time_and_says_so(avatar: lnb.Avatar) -> None:
    found = autotune(avatar, max_frames=FRAMES, seconds=1e-6)
    assert len(found.figures) == found.done_trials == 1
    (line,) = found.notes
    count = found.planned_trials
    assert line.startswith(f"The time was over before everything was tried: 1 of {count} trials;")
    assert line in str(found)
    assert "The time was over" in found.to_html()
    assert len(found.untried) == len(candidates(lnb.RenderConfig(), available_cores())) - 1
    # What is remembered says it too.
    assert autotune(avatar, max_frames=FRAMES).notes == found.notes
    full = Tuned(lnb.RenderConfig(), {"a": Spread(1, 1, 1)}, 1.0, {}, "steady", 3, 4)
    assert full.notes[0].endswith("3 of 4 trials, each configuration at least once.")
    assert autotune(avatar, max_frames=FRAMES, seconds=1e-6, renew=True).seconds > 0


def test_wrong_requests_are_told(avatar: lnb.Avatar) -> None:
    with pytest.raises(BenchmarkError, match="seconds: found 0"):
        autotune(avatar, seconds=0)
    with pytest.raises(BenchmarkError, match="max_frames: found 0"):
        autotune(avatar, max_frames=0)
    with pytest.raises(BenchmarkError, match="target: found 'fast', expected steady or first-clip"):
        autotune(avatar, target="fast")
    with pytest.raises(BenchmarkError, match="allow: found 'crf', expected a list of some of pre"):
        autotune(avatar, allow=["crf"])
    with pytest.raises(BenchmarkError, match="allow: found 'preset'"):
        autotune(avatar, allow="preset")
    with pytest.raises(NetworkError, match="found no generator"):
        autotune(replace(avatar, generator=None))


def test_command(
    synctalk_folder: Path, speech_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["tune", str(synctalk_folder), str(speech_file), "--target", "first-clip"]
    assert main([*words, "--frames", "3", "--seconds", "0.001", "--allow", "preset"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Best here: ")
    assert "(first-clip), found in" in out
    assert "wall s" in out
    assert main([*words, "--allow", "crf"]) == 2
    assert "allow: found 'crf'" in capsys.readouterr().err
