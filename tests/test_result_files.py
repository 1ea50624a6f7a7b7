"""Files of results that are damaged: one sentence or the right result, never another error."""

import copy
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import lipsync_nb as lnb
from lipsync_nb.errors import BenchmarkError, LipsyncError, NotFoundError, OutputError, SpeechError
from lipsync_nb.experiments import golden as regression
from lipsync_nb.experiments.demo_truths import demo_truth
from lipsync_nb.experiments.quality_reports import Measure, Moment, QualityReport, Track
from lipsync_nb.experiments.runs import Benchmark, Run
from lipsync_nb.experiments.sweeps import SweepRow
from lipsync_nb.pipeline.timing import Lane, StageRow
from lipsync_nb.types.rich import Rich

MOST = 500
FRAMES = 4
NAMES = ["baseline", "cached"]
VALUES: list[Any] = [
    None, "x", "", "-1", -1, 0, 1, 0.5, 1e308, 5e-324, 2**60, 10**400, float("nan"),
    float("inf"), -float("inf"), True, [], {}, [[]], [{}], {"x": 1}, "long " * 2000, "\ud800",
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A real file of each kind, measured in tiny form."""
    folder = tmp_path_factory.mktemp("saved")
    measured = lnb.experiments.benchmark(avatar, speech, NAMES, repeats=2, max_frames=FRAMES)
    told = lnb.experiments.ablation(avatar, speech, steps=NAMES, repeats=1, max_frames=FRAMES)
    swept(avatar, speech, folder / "sweep.json")
    return {
        "benchmark": measured.save(folder / "benchmark.json"),
        "story": told.save(folder / "story.json"),
        "sweep": folder / "sweep.json",
        "quality": quality_report().save(folder / "quality.json"),
    }


def quality_report() -> QualityReport:
    """A report of a clip with one of each part."""
    measures = (
        Measure("seam", "seam", 2.0, "x", "at most", 1.5, "a note"),
        Measure("truth_r", "truth", None),
    )
    moment = Moment("seam", 3, 0.12, 2.0, "AAAA", "AAAA")
    tracks = (
        Track("seam", "step", 1.0, (1.0, 2.0), limit=1.5),
        Track("sync_confidence", "r", 1.2, (0.1, 0.4, 0.2), -0.6),
    )
    return QualityReport("a.mp4", 9, 25.0, measures, (moment,), tracks, ("a note",))


def swept(avatar: lnb.Avatar, speech: lnb.Speech, path: Path) -> lnb.experiments.Sweep:
    """The sweep whose file is damaged; it goes on where the file has not all its runs."""
    config = lnb.RenderConfig(cache="none", feature_cache="off", fuse=False)
    return lnb.experiments.sweep(
        avatar, speech, base=config, batch_size=[1, 2], overlap=[True, False], repeats=1,
        max_frames=FRAMES, path=path,
    )  # fmt: skip


LOADERS: dict[str, Callable[[Path], Any]] = {
    "benchmark": Benchmark.load,
    "story": lnb.experiments.Ablation.load,
    "sweep": lnb.experiments.Sweep.load,
    "quality": QualityReport.load,
}


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every container and leaf of JSON is, by keys and indices from the top."""
    yield path
    if isinstance(data, dict | list):
        for key in data if isinstance(data, dict) else range(len(data)):
            yield from places(data[key], (*path, key))


def with_value(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    made = copy.deepcopy(data)
    at(made, path[:-1])[path[-1]] = value
    return made


def at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def without(data: Any, path: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(data)
    del at(made, path[:-1])[path[-1]]
    return made


def doubled(data: Any, path: tuple[Any, ...]) -> Any:
    """An entry of a list twice, or of an object under a second name."""
    made = copy.deepcopy(data)
    parent, key = at(made, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[f"{key}_2"] = parent[key]
    return made


def mutations(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Systematic damage to a file of JSON: each place of it with each value, and cut bytes."""
    data = json.loads(content)
    for path in places(data):
        name = ".".join(map(str, path))
        for value in VALUES:
            yield f"{name} = {value!r:.40}", json.dumps(with_value(data, path, value)).encode()
        if path:
            yield f"{name} removed", json.dumps(without(data, path)).encode()
            yield f"{name} doubled", json.dumps(doubled(data, path)).encode()
    for length in range(0, len(content), max(1, len(content) // 60)):
        yield f"cut at {length}", content[:length]
        yield f"byte {length} flipped", content[:length] + b"\xff" + content[length + 1 :]


def chosen(content: bytes, most: int) -> list[tuple[str, bytes]]:
    """So many of them, the same ones each time."""
    made = list(mutations(content))
    return made if len(made) <= most else random.Random(0).sample(made, most)


def used(thing: Any, path: Path) -> None:
    """All that is done with a result that was read: shown, saved, read again, reckoned with."""
    assert isinstance(thing, Rich)
    assert str(thing)
    assert "lsnb" in thing.to_html()
    assert thing._repr_mimebundle_()
    assert type(thing).load(thing.save(path)) == thing  # type: ignore[attr-defined]
    if isinstance(thing, lnb.experiments.Sweep):
        assert len(thing.to_csv().splitlines()) == len(thing.rows) + 1
        assert len(thing.to_rows()) == len(thing.rows)
        assert thing.verdict.endswith(".")
        assert all(row in thing.rows for row in thing.measured)
    if isinstance(thing, Benchmark):
        ratios = [thing.ratio(name, thing.names[0]) for name in thing.names]
        assert all(0 < ratio.low <= ratio.median <= ratio.high for ratio in ratios)
        assert ratios[0].median == 1


def raw_errors(
    made: list[tuple[str, bytes]],
    path: Path,
    use: Callable[[Path], object],
    named: bool = True,
) -> tuple[list[str], int]:
    """Errors that are not one of the package's sentences, and how many files were taken."""
    wrong, taken = [], 0
    for name, content in made:
        path.write_bytes(content)
        try:
            use(path)
            taken += 1
        except LipsyncError as error:
            if "\n" in str(error) or (named and str(path) not in str(error)):
                wrong.append(f"{name}: {error}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {error}")
    return wrong, taken


@pytest.mark.parametrize("kind", LOADERS)
def test_damaged_files_end_in_a_sentence_or_a_result(
    kind: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    made = chosen(saved[kind].read_bytes(), MOST)
    assert len(made) >= 120
    wrong, taken = raw_errors(
        made, tmp_path / "file.json", lambda p: used(LOADERS[kind](p), tmp_path / "again.json")
    )
    assert wrong == []
    assert 0 < taken < len(made) / 2


def test_sweeps_go_on_from_damaged_files_or_say_why_not(
    avatar: lnb.Avatar, speech: lnb.Speech, saved: dict[str, Path], tmp_path: Path
) -> None:
    made = chosen(saved["sweep"].read_bytes(), 25)
    wrong, taken = raw_errors(
        made, tmp_path / "sweep.json", lambda path: swept(avatar, speech, path)
    )
    assert wrong == []
    assert 0 < taken < len(made)


def entries() -> dict[str, Any]:
    """A benchmark's file of two runs, as it is written."""
    run = {
        "name": "a", "repeat": 0, "num_frames": 10, "seconds": 2.0, "warmup_seconds": 0.5,
        "inference_seconds": 1.0, "rss_bytes": 5, "provider": "CPU", "threads": 2,
        "stages": [{"stage": "encode", "seconds": 1, "frames": 10, "p50_ms": 1.5, "p95_ms": 2.5}],
        "lanes": [],
    }  # fmt: skip
    runs = [run, {**copy.deepcopy(run), "repeat": 1}]
    return {"kind": "benchmark", "version": 2, "environment": {"cores": "2"}, "runs": runs}


def read(path: Path, content: bytes | dict[str, Any]) -> Benchmark:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return Benchmark.load(path)


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (("runs", 1, "seconds"), "2", r"runs[1].seconds: found '2', expected a number."),
        (("runs", 1, "seconds"), 0, "runs[1].seconds: found 0, expected 1e-09 to 1e+12."),
        (("runs", 1, "repeat"), True, "runs[1].repeat: found True, expected a whole number."),
        (("runs", 1, "rss_bytes"), -1, "runs[1].rss_bytes: found -1, expected 0 to 1e+15."),
        (("runs", 0, "stages", 0, "frames"), None, "].frames: found null, expected a whole n"),
        (("runs", 0, "stages", 0, "seconds"), -2, "runs[0].stages[0].seconds: found -2, expected"),
        (("runs", 0, "stages"), {}, "runs[0].stages: found an object, expected a list."),
        (("runs", 0), [], "runs[0]: found a list, expected an object."),
        (("runs", 0, "speed"), 1, "runs[0]: found an unknown entry 'speed', expected name, rep"),
        (("_displays",), "x", "found an unknown entry '_displays', expected runs, environment."),
        (("__class__",), {}, "found an unknown entry '__class__', expected runs, environment."),
        (("runs", 1, "fps"), 1, "runs[1]: found an unknown entry 'fps', expected name, repeat"),
        (("runs", 1, "repeat"), 2, "runs: found repeats 0, 2 of 'a', expected 0, 1."),
        (("runs",), [], "runs: found none, expected two or more."),
        (("environment", "cores"), 2, "environment['cores']: found 2, expected a text."),
        (("version",), 2.0, "is of version 2.0, expected 2."),
    ],
)
def test_the_sentence_names_the_entry(
    place: tuple[Any, ...], value: Any, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.json"
    assert read(path, entries()).fps("a").median == 5
    with pytest.raises(BenchmarkError) as caught:
        read(path, with_value(entries(), place, value))
    assert str(caught.value).startswith(f"{path}: ")
    assert sentence in str(caught.value)


def test_a_missing_entry_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"runs\[1\]\.provider: is missing\.$"):
        read(tmp_path / "file.json", without(entries(), ("runs", 1, "provider")))


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0" * 100, b"null", b"3", b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xfe{}", b"NaN",
        json.dumps(entries()).encode("utf-16"), b'{"kind": "benchmark", "kind": "benchmark"}',
        b'{"kind": "benchmark", "version": ' + b"9" * 5000 + b"}",
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_results_is_named(content: bytes, tmp_path: Path) -> None:
    of_no_kind = content in (b"null", b"3")
    message = "found results of kind None" if of_no_kind else r"not a file of results \("
    with pytest.raises(BenchmarkError, match=rf"file\.json: {message}.*\.$"):
        read(tmp_path / "file.json", content)


def test_a_name_that_comes_twice_among_many_is_found_at_once(tmp_path: Path) -> None:
    names = ", ".join(f'"{number}": 0' for number in [*range(200_000), 199_999])
    with pytest.raises(BenchmarkError, match="found '199999' twice in one object"):
        read(tmp_path / "file.json", f"{{{names}}}".encode())


def test_a_mark_of_the_byte_order_does_no_harm(tmp_path: Path) -> None:
    plain = json.dumps(entries()).encode()
    marked = read(tmp_path / "marked.json", b"\xef\xbb\xbf" + plain)
    assert marked == read(tmp_path / "plain.json", plain)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    huge, pipe, link = (tmp_path / name for name in ("huge", "pipe", "link"))
    os.mkfifo(pipe)
    link.symlink_to(tmp_path / "nothing")
    with open(huge, "wb") as file:
        file.truncate(1_000_000_000)
    for path, message in ((tmp_path, "no regular file"), (pipe, "no regular"), (huge, "1000 MB")):
        with pytest.raises(BenchmarkError, match=message):
            Benchmark.load(path)
    for path in (link, tmp_path / "none"):
        with pytest.raises(NotFoundError, match="no such file of results"):
            Benchmark.load(path)
    for path in ("a\0b", huge / "file.json", "n" * 5000):
        with pytest.raises(BenchmarkError, match="not a file of results"):
            Benchmark.load(path)


def test_half_a_surrogate_is_read_as_text_that_can_be_written(tmp_path: Path) -> None:
    result = read(tmp_path / "file.json", with_value(entries(), ("runs", 1, "provider"), "\udc80"))
    assert result.runs[1].provider == "\\udc80"
    page = lnb.write_report(tmp_path / "page.html", result, title="\udc80")
    assert "<title>\\udc80</title>" in page.read_text(encoding="utf-8")


def test_values_of_a_numpy_array_can_be_swept(
    avatar: lnb.Avatar, speech: lnb.Speech, tmp_path: Path
) -> None:
    path = tmp_path / "sweep.json"
    made = lnb.experiments.sweep(
        avatar, speech, batch_size=np.array([1]), cache=["none"], repeats=1, max_frames=2, path=path
    )
    assert lnb.experiments.Sweep.load(path) == made


def a_run(repeat: int = 0, **values: Any) -> Run:
    given = {"num_frames": 10, "seconds": 1.0, "inference_seconds": 1.0, "stages": (), **values}
    return Run("a", repeat, warmup_seconds=0, rss_bytes=5, provider="CPU", threads=2, **given)


@pytest.mark.parametrize(
    "values",
    [
        {"num_frames": 0}, {"seconds": 0.0}, {"seconds": float("nan")}, {"inference_seconds": -1},
        {"seconds": float("inf")}, {"stages": (StageRow("encode", float("nan"), 1),)},
        {"lanes": (Lane("main", 1, -1, 0),)},
    ],
)  # fmt: skip
def test_records_refuse_what_cannot_be(values: dict[str, Any]) -> None:
    assert a_run().fps == 10
    (name,) = values
    with pytest.raises(BenchmarkError, match=rf"^{name}(\[0\]\..*)?: found .*, expected .* to 1e"):
        a_run(**values)


def test_results_refuse_what_does_not_belong_together() -> None:
    config = lnb.RenderConfig(batch_size=2)
    row = SweepRow({"batch_size": 2}, config)
    for make, message in (
        (lambda: Benchmark(()), "runs: found none"),
        (lambda: Benchmark((a_run(0),)), "found repeats 0 of 'a', expected 0, 1"),
        (lambda: lnb.experiments.Sweep(()), "rows: found none"),
        (
            lambda: lnb.experiments.Sweep((row, SweepRow({"n_jobs": 1}, config))),
            r"rows\[1\].values: found n_j",
        ),
        (lambda: SweepRow({}, config), "values: found none"),
        (lambda: SweepRow({"speed": 1}, config), "values: found 'speed', expected a field"),
        (lambda: SweepRow({"batch_size": 3}, config), "found batch_size 3, expected 2 as in"),
    ):
        with pytest.raises(BenchmarkError, match=message):
            make()


def test_damaged_golden_pictures_end_in_a_sentence(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    regression.write_pictures(tmp_path, {3: picture})
    path = tmp_path / "frame_0003.png"
    content = path.read_bytes()

    def compared(_: Path) -> None:
        found = regression.read_pictures(tmp_path, [3])
        result = regression.compare_frames(found, {3: picture}, regression.Limits(largest=0))
        assert str(result)
        assert "lsnb" in result.to_html()
        result.check()

    cuts = [content[: len(content) * part // 100] for part in range(0, 100, 2)]
    flips = [content[:i] + bytes([content[i] ^ 255]) + content[i + 1 :] for i in range(0, 100, 2)]
    other = cv2.imencode(".png", picture[:8])[1].tobytes()
    made = [(str(i), made) for i, made in enumerate([*cuts, *flips, other, b"", b"\0" * 99])]
    wrong, taken = raw_errors(made, path, compared, named=False)
    assert wrong == []
    assert taken == 0
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(NotFoundError, match="no such golden picture"):
        compared(path)


def test_golden_pictures_go_where_they_can(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        regression.write_pictures(tmp_path / "file" / "golden", {})


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\1\0", "objects", "other", "no number"])
def test_a_damaged_truth_beside_a_speech_is_named(content: bytes | str, tmp_path: Path) -> None:
    file = tmp_path / "hello.truth.npz"
    if content == "objects":
        np.savez(file, mouth=np.array([{}], object))
    elif content == "no number":
        np.savez(file, mouth=np.full((9, 1), np.nan))
    elif isinstance(content, str):
        np.savez(file, mouth=np.zeros(3))
    else:
        file.write_bytes(content)
    demo = lnb.load_avatar("demo")
    speech = lnb.Speech(features=np.zeros((9, 512), np.float32), path=tmp_path / "hello.wav")
    with pytest.raises(SpeechError, match=r"hello\.truth\.npz: .*expected"):
        demo_truth(demo, speech)
