"""Many clips: each is made once, as it would be by itself; what is there already is kept."""

import inspect
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import joblib
import pytest
from builders import tone_speech, write_synctalk_avatar
from filelock import FileLock

import lipsync_nb as lnb
from lipsync_nb.__main__ import main
from lipsync_nb.errors import BatchError
from lipsync_nb.many.manifest import Entry, Manifest
from lipsync_nb.media.video import iter_video

CONFIG = lnb.RenderConfig(provider="cpu", crf=30)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An avatar and four speeches."""
    root = tmp_path_factory.mktemp("many")
    write_synctalk_avatar(root / "person", num_frames=5)
    for number in range(4):
        tone_speech(root / f"{number}.wav", 0.8 + 0.2 * number, 22_050, 1)
    return root


@pytest.fixture
def folder(material: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(material, tmp_path / "many"))


def jobs_in(folder: Path, count: int = 4) -> list[lnb.ClipJob]:
    return [
        lnb.ClipJob(folder / "person", folder / f"{n % 4}.wav", folder / "out" / f"{n}.mp4", CONFIG)
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def alone(material: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[bytes]]:
    """The frames of each clip, rendered by itself."""
    out = tmp_path_factory.mktemp("alone")
    avatar = lnb.load_avatar(material / "person")
    for number in range(4):
        speech = lnb.load_speech(material / f"{number}.wav")
        lnb.render(avatar, speech, out / f"{number}.mp4", CONFIG)
    return [frames_of(out / f"{number}.mp4") for number in range(4)]


def frames_of(path: Path) -> list[bytes]:
    return [frame.tobytes() for frame in iter_video(path)]


def lines_of(folder: Path) -> list[dict[str, object]]:
    text = (folder / "out" / "manifest.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def states(result: object) -> list[str]:
    return [outcome.state for outcome in result.outcomes]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "how",
    [
        lambda jobs: lnb.render_many(jobs),
        lambda jobs: lnb.render_many(jobs, 2),
        lambda jobs: in_threads(jobs),
    ],
    ids=["one after the other", "processes", "threads"],
)
def test_clips_are_those_of_a_render_alone(
    folder: Path, alone: list[list[bytes]], how: Callable[[list[lnb.ClipJob]], object]
) -> None:
    jobs = jobs_in(folder)
    result = how(jobs)
    assert states(result) == ["rendered"] * 4
    assert [frames_of(Path(job.out)) for job in jobs] == alone
    assert [o.num_frames for o in result.outcomes] == list(map(len, alone))  # type: ignore[attr-defined]
    assert not [p for p in (folder / "out").iterdir() if p.name.endswith(".claim")]


def in_threads(jobs: list[lnb.ClipJob]) -> object:
    with joblib.parallel_config("threading", n_jobs=2):
        return lnb.render_many(jobs)


def test_a_second_call_does_what_is_missing_or_changed(folder: Path) -> None:
    jobs = jobs_in(folder)
    assert states(lnb.render_many(jobs)) == ["rendered"] * 4
    again = lnb.render_many(jobs)
    assert states(again) == ["kept"] * 4
    assert "4 kept" in again.head
    assert again.num_frames == 0
    # Only how fast it goes is another matter.
    faster = [replace(job, config=replace(CONFIG, batch_size=2)) for job in jobs]
    assert states(lnb.render_many(faster)) == ["kept"] * 4

    Path(jobs[0].out).unlink()
    tone_speech(Path(jobs[1].speech), 1.1, 22_050, 2)
    jobs[2] = replace(jobs[2], config=replace(CONFIG, crf=31))
    assert states(lnb.render_many(jobs)) == ["rendered"] * 3 + ["kept"]
    Path(jobs[3].out).write_bytes(b"somebody else's")
    assert states(lnb.render_many(jobs)) == ["kept"] * 3 + ["rendered"]
    assert states(lnb.render_many(jobs[:1], redo=True)) == ["rendered"]


@pytest.mark.parametrize("what", ["generator.onnx", "audio_encoder.onnx", "frame"])
def test_a_changed_avatar_is_rendered_anew(folder: Path, what: str) -> None:
    jobs = jobs_in(folder)[:1]
    lnb.render_many(jobs)
    other = folder.parent / "other"
    write_synctalk_avatar(other, num_frames=5, seed=7)
    name = "full_body_img/2.jpg" if what == "frame" else f"models/{what}"
    shutil.copyfile(other / name, folder / "person" / name)
    assert states(lnb.render_many(jobs)) == ["rendered"]
    assert states(lnb.render_many(jobs)) == ["kept"]


def test_a_clip_that_fails_stops_no_other(folder: Path) -> None:
    jobs = jobs_in(folder)
    jobs[0] = replace(jobs[0], speech=folder / "nowhere.wav")
    jobs[1] = replace(jobs[1], avatar=folder / "nobody")
    shutil.copytree(folder / "person", folder / "broken")
    (folder / "broken" / "models" / "generator.onnx").write_bytes(b"no network")
    jobs[2] = replace(jobs[2], avatar=folder / "broken")
    result = lnb.render_many(jobs, 2)
    assert states(result) == ["failed"] * 3 + ["rendered"]
    assert "nowhere.wav" in result.failures[0].error
    assert "no such avatar folder" in result.failures[1].error
    assert "generator.onnx" in result.failures[2].error
    with pytest.raises(BatchError, match=r"nowhere.wav.*and 2 more"):
        result.raise_if_failed()
    assert "3 failed" in str(result)
    assert {line["outcome"] for line in lines_of(folder)} == {"failed", "started", "rendered"}


def test_a_manifest_that_is_cut_or_edited_costs_its_own_clips_alone(folder: Path) -> None:
    jobs = jobs_in(folder)
    lnb.render_many(jobs)
    path = folder / "out" / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    ends = [n for n, line in enumerate(lines) if b'"rendered"' in line]
    lines[ends[0]] = b'{"out": "out/0.mp4", "outcome": "rendered"'  # no end
    lines[ends[1]] = lines[ends[1]].replace(b'"num_frames": ', b'"num_frames": "many", "x": ')
    path.write_bytes(b"\n".join([b"".join(lines[:-1]), b"\xff\x00[[[[", lines[-1][:-9]]))
    result = lnb.render_many(jobs)
    assert states(result) == ["rendered", "rendered", "kept", "rendered"]
    assert "passed over" in result.notes[0]
    assert states(lnb.render_many(jobs)) == ["kept"] * 4


def test_a_line_cut_off_spoils_no_later_one(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"out": "a.mp4", "outco')
    manifest = Manifest(path)
    manifest.add(Entry(str(tmp_path / "b.mp4"), "rendered", "f"))
    manifest.read()
    assert manifest.num_unreadable == 1
    entry = manifest.last(tmp_path / "b.mp4")
    assert entry is not None
    assert (entry.out, entry.fingerprint) == ("b.mp4", "f")
    assert manifest.last(tmp_path / "a.mp4") is None


def test_who_stands_still_in_the_middle_of_a_line_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipsync_nb.many.manifest._LOCK_SECONDS", 0.1)
    path = tmp_path / "m.jsonl"
    with FileLock(f"{path}.lock"), path.open("ab", buffering=0) as file:
        file.write(b'{"out": "a.mp4", "outco')
        Manifest(path).add(Entry(str(tmp_path / "b.mp4"), "rendered", "f"))
        # It was still; it goes on.
        Manifest(path).add(Entry(str(tmp_path / "c.mp4"), "started", "f"))
        file.write(b'me": "started"}\n')
    manifest = Manifest(path)
    manifest.read()
    assert [manifest.last(tmp_path / f"{name}.mp4") is None for name in "abc"] == [
        True,
        False,
        False,
    ]
    assert manifest.num_unreadable == 2


def test_who_stands_still_between_two_lines_leaves_none_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lipsync_nb.many.manifest._LOCK_SECONDS", 0.1)
    path = tmp_path / "m.jsonl"
    manifest = Manifest(path)
    manifest.add(Entry(str(tmp_path / "a.mp4"), "started", "f"))
    with FileLock(f"{path}.lock"):
        for name in "bc":
            manifest.add(Entry(str(tmp_path / f"{name}.mp4"), "started", "f"))
    manifest.add(Entry(str(tmp_path / "d.mp4"), "started", "f"))
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["out"] for line in lines] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]


def test_two_batches_make_each_clip_once(folder: Path) -> None:
    table = write_table(folder, 8)
    command = [sys.executable, "-m", "lipsync_nb", "batch", str(table), "--provider", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    done = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], done
    text = (folder / "manifest.jsonl").read_text(encoding="utf-8")
    entries = [json.loads(line) for line in text.splitlines()]
    rendered = Counter(e["out"] for e in entries if e["outcome"] == "rendered")
    assert rendered == {f"out/{number}.mp4": 1 for number in range(8)}
    assert len({e["pid"] for e in entries}) == 2, "one of them had nothing to do"


def write_table(folder: Path, count: int) -> Path:
    rows = [f"person,{n % 4}.wav,out/{n}.mp4\n" for n in range(count)]
    (folder / "jobs.csv").write_text("avatar,speech,out\n" + "".join(rows), encoding="utf-8")
    return folder / "jobs.csv"


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_table(folder, 2)
    command = ["batch", str(table), "--crf", "30", "--provider", "cpu"]
    assert main(command) == 0
    assert "2 clips: 2 rendered" in capsys.readouterr().out
    with table.open("a", encoding="utf-8") as file:
        file.write("person,none.wav,out/none.mp4\n")
    assert main(command) == 2
    shown = capsys.readouterr()
    assert "3 clips: 2 kept, 1 failed" in shown.out
    assert "1 of 3 clips failed" in shown.err.splitlines()[-1]
    assert main(["batch", str(folder / "no.csv")]) == 2
    assert capsys.readouterr().err == (
        f"lipsync-nb: {folder / 'no.csv'}: cannot be read (No such file or directory).\n"
    )


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ([], "found no jobs"),
        (["clip"], "found str among the jobs"),
        (
            [lnb.ClipJob("demo", "a.wav", "x.mp4"), lnb.ClipJob("demo", "b.wav", "./x.mp4")],
            "2 jobs",
        ),
    ],
)
def test_jobs_that_cannot_be(jobs: list[lnb.ClipJob], message: str) -> None:
    with pytest.raises(BatchError, match=message):
        lnb.render_many(jobs)


def test_an_output_that_cannot_be_is_that_clips_failure(folder: Path) -> None:
    in_a_file = folder / "0.wav" / "x.mp4"
    jobs = [replace(jobs_in(folder)[0], out=in_a_file), jobs_in(folder)[1]]
    result = lnb.render_many(jobs, manifest=folder / "m.jsonl")
    assert states(result) == ["failed", "rendered"]
    assert "cannot be written" in result.outcomes[0].error


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to it"
        time.sleep(0.02)


def test_a_job_says_how_its_avatar_is_loaded(folder: Path) -> None:
    """By the names of `load_avatar`; a change of these is a change of the clip."""
    parameters = inspect.signature(lnb.load_avatar).parameters
    assert {field.name for field in fields(lnb.ClipJob)} >= parameters.keys() - {"path"}
    short = replace(CONFIG, max_frames=2)
    job = replace(jobs_in(folder, 1)[0], config=short)
    assert states(lnb.render_many([job])) == ["rendered"]
    given: dict[str, object] = {"fps": "30", "box": (4, 4, 40, 40)}
    for name, value in given.items():
        job = replace(job, **{name: value})  # type: ignore[arg-type]
        assert states(lnb.render_many([job])) == ["rendered"], name
        assert states(lnb.render_many([job])) == ["kept"], name
    avatar = lnb.load_avatar(folder / "person", **given)  # type: ignore[arg-type]
    alone = folder / "alone.mp4"
    lnb.render(avatar, lnb.load_speech(folder / "0.wav"), alone, short)
    assert alone.read_bytes() == Path(job.out).read_bytes()
    (failure,) = lnb.render_many([replace(job, spec="wav2lip-96")]).failures
    assert "expected [N, 6, 96, 96]" in failure.error
    (failure,) = lnb.render_many([replace(job, box=(0, 0, 0, 0))]).failures
    assert "box=" in failure.error


def test_a_folder_that_somebody_changed_is_no_clip_that_is_there(folder: Path) -> None:
    out = folder / "out" / "pictures"
    job = lnb.ClipJob(folder / "person", folder / "0.wav", out, replace(CONFIG, max_frames=3))
    assert states(lnb.render_many([job])) == ["rendered"]
    assert states(lnb.render_many([job])) == ["kept"]
    (out / "000001.jpg").unlink()
    result = lnb.render_many([job])
    assert states(result) == ["failed"]
    assert "expected a new or empty folder" in result.failures[0].error
    shutil.rmtree(out)
    assert states(lnb.render_many([job])) == ["rendered"]


def test_a_mask_that_is_not_there_fails_its_clip_alone(folder: Path) -> None:
    soft = replace(CONFIG, paste="feather", max_frames=2)
    jobs = [replace(job, config=soft) for job in jobs_in(folder, 2)]
    jobs[1] = replace(jobs[1], avatar=shutil.copytree(folder / "person", folder / "other"))
    assert states(lnb.render_many(jobs)) == ["rendered"] * 2
    (folder / "person" / "masks").mkdir()
    (folder / "person" / "masks" / "0.png").symlink_to("nowhere.png")
    result = lnb.render_many(jobs)
    assert states(result) == ["failed", "kept"]
    assert "masks/0.png: is not there" in result.failures[0].error


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("workers", 0, "n_jobs: found 0, expected 1 or more, or -1"),
        ("cores", -3, "cores: found -3, expected 0 to 256"),
        ("cores", 999, "cores: found 999, expected 0 to 256"),
    ],
)
def test_numbers_of_workers_and_cores(
    folder: Path, capsys: pytest.CaptureFixture[str], option: str, value: int, sentence: str
) -> None:
    table = write_table(folder, 1)
    assert main(["batch", str(table), f"--{option}", str(value)]) == 2
    assert sentence in capsys.readouterr().err
