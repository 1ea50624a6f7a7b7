"""Tables of jobs: what is written is read, and what is wrong is one sentence with its line."""

import csv
import io
import json
import os
import string
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lipsync_nb as lnb
from lipsync_nb.errors import BatchError

QUIET = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# What names of files may hold, separators and quotes among it.
NAMES = st.text(
    st.characters(exclude_characters="/\\\0\r\n", exclude_categories=["Cs", "Cc", "Z"])
    | st.sampled_from(" ,;\t|\"'"),
    min_size=1,
    max_size=12,
).filter(lambda name: name.strip() == name and name not in (".", "..") and name[0] != "~")
ROWS = st.lists(
    st.fixed_dictionaries(
        {"avatar": NAMES, "speech": NAMES, "crf": st.integers(0, 51), "fuse": st.booleans()}
    ),
    min_size=1,
    max_size=6,
)
HEAD = ["avatar", "speech", "out", "crf", "fuse"]


def expected(rows: list[dict[str, object]], folder: Path) -> list[lnb.ClipJob]:
    return [
        lnb.ClipJob(
            Path("demo") if row["avatar"] == "demo" else folder / str(row["avatar"]),
            folder / str(row["speech"]),
            folder / "out" / f"{n}.mp4",
            lnb.RenderConfig(crf=row["crf"], fuse=row["fuse"]),  # type: ignore[arg-type]
        )
        for n, row in enumerate(rows)
    ]


@QUIET
@given(
    rows=ROWS,
    separator=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    ends=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_is_read_as_it_was_written(
    tmp_path: Path, rows: list[dict[str, object]], separator: str, encoding: str, ends: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=ends)
    writer.writerow(HEAD)
    for n, row in enumerate(rows):
        writer.writerow([row["avatar"], row["speech"], f"out/{n}.mp4", row["crf"], row["fuse"]])
    path = tmp_path / "jobs.csv"
    path.write_bytes(text.getvalue().encode(encoding))
    assert lnb.read_jobs(path) == expected(rows, tmp_path)


@QUIET
@given(rows=ROWS)
def test_json_lines_are_read_as_they_were_written(
    tmp_path: Path, rows: list[dict[str, object]]
) -> None:
    lines = [json.dumps({**row, "out": f"out/{n}.mp4"}) for n, row in enumerate(rows)]
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n\n".join(lines), encoding="utf-8")
    assert lnb.read_jobs(path) == expected(rows, tmp_path)


@QUIET
@given(
    out=st.lists(st.sampled_from(["..", ".", "a", "b", "", "link"]), min_size=1, max_size=6),
    absolute=st.booleans(),
)
def test_no_output_leaves_the_folder(tmp_path: Path, out: list[str], absolute: bool) -> None:
    inside = tmp_path / "tables"
    inside.mkdir(exist_ok=True)
    if not (inside / "link").is_symlink():
        (inside / "link").symlink_to(tmp_path)
    name = ("/" if absolute else "") + "/".join([*out, "x.mp4"])
    (inside / "jobs.jsonl").write_text(json.dumps({"avatar": "a", "speech": "s", "out": name}))
    root, real = os.path.realpath(inside), os.path.realpath(os.path.normpath(inside / name))
    if not real.startswith(f"{root}/"):
        with pytest.raises(BatchError, match=r"line 1: its output .* leaves"):
            lnb.read_jobs(inside / "jobs.jsonl")
        return
    (job,) = lnb.read_jobs(inside / "jobs.jsonl")
    assert os.path.realpath(job.out) == real


@QUIET
@given(content=st.binary(max_size=200) | st.text(string.printable, max_size=200).map(str.encode))
def test_anything_is_jobs_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    for name in ("jobs.csv", "jobs.jsonl"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BatchError) as raised:
            lnb.read_jobs(tmp_path / name)
        assert str(raised.value).startswith(str(tmp_path / name))
        assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("j.csv", "avatar,out\na,b\n", "head line is 'avatar, out', expected a column for speech"),
        ("j.csv", "", "found no rows"),
        ("j.csv", "avatar,speech,out\n", "found no rows"),
        ("j.csv", "avatar,speech,out\na,b\n", "line 2: found 2 cells, expected 3"),
        ("j.csv", "avatar,speech,out,crff\na,b,c.mp4,1\n", "'crff', expected perhaps crf"),
        ("j.csv", "avatar,speech,out,crf\na,b,c.mp4,99\n", "line 2: crf: found 99"),
        ("j.csv", "avatar,speech,out,crf\na,b,c.mp4,many\n", "line 2: crf: found 'many'"),
        ("j.csv", "avatar,speech,out,fuse\na,b,c.mp4,perhaps\n", "fuse: found 'perhaps'"),
        ("j.csv", "avatar,speech,out\n,b,c.mp4\n", "line 2: has no avatar, expected a path"),
        ("j.csv", "avatar,speech,out\na,b,c.mp4\na,d,./c.mp4\n", "line 3.*the output of line 2"),
        ("j.csv", 'avatar,speech,out\n"a,b,c.mp4\n', "is no CSV"),
        ("j.csv", "avatar,speech,out,out\na,b,c.mp4,d\n", "two columns 'out'"),
        ("j.csv", "avatar,speech,out\nä,b,c.mp4\n".encode("cp1252"), "line 2: is not text"),
        ("j.csv", "avatar,speech,out,family\na,b,c.mp4,auto\n", "'family', expected perhaps spec"),
        ("j.csv", "avatar,speech,out,spec\na,b,c.mp4,wav\n", "line 2: spec: found 'wav'"),
        ("j.csv", "avatar,speech,out,fps\na,b,c.mp4,fast\n", "line 2: fps: found 'fast'"),
        ("j.csv", "avatar,speech,out,fps\na,b,c.mp4,1e999999999\n", "fps: found '1e999999999'"),
        ("j.csv", "avatar,speech,out,boxes\na,b,c.mp4,mine\n", "line 2: boxes: found 'mine'"),
        ("j.csv", "avatar;speech;out;box\na;b;c.mp4;1,2,3\n", "line 2: box: found '1,2,3'"),
        ("j.csv", "avatar;speech;out;box\na;b;c.mp4;1,2,3,nan\n", "line 2: box: found"),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": "c", "box": 7}', "box: found 7"),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": "c", "box": [1, 2, 3, true]}', "box: "),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": "c", "fps": NaN}', "fps: found nan"),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": "c", "spec": ["x"]}', "spec: found"),
        ("j.jsonl", '{"avatar": "a"}\n', "line 1: has no speech"),
        ("j.jsonl", '{"avatar": "a", "avatar": "b"}', "it has 'avatar' twice"),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": " "}', "line 1: has no out"),
        ("j.jsonl", r'{"avatar": "a", "speech": "b", "out": "\ud800.mp4"}', "line 1: out is"),
        ("j.csv", "avatar,speech,out,,\na,b,c.mp4,,x\n", "line 2: does not know ''"),
        ("j.jsonl", "[1]\n", r"line 1: found \[1\], expected an object"),
        ("j.jsonl", '{"avatar"\n', "line 1: is no JSON"),
        ("j.jsonl", "[" * 100_000, "line 1: is no JSON"),
        ("j.jsonl", '{"avatar": 3, "speech": "b", "out": "c.mp4"}', "avatar is 3, expected a path"),
        ("j.jsonl", '{"avatar": "a", "speech": "b", "out": "c.mp4", "crf": 1.5}', "crf: found 1.5"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(BatchError, match=message) as raised:
        lnb.read_jobs(tmp_path / name)
    assert str(tmp_path / name) in str(raised.value)


def test_a_row_overrides_what_the_caller_says(tmp_path: Path) -> None:
    table = "avatar,speech,out,crf\ndemo,b.wav,c.mp4,\ndemo,b.wav,d.mp4,30\n"
    (tmp_path / "j.csv").write_text(table)
    jobs = lnb.read_jobs(tmp_path / "j.csv", lnb.RenderConfig(crf=25, batch_size=2))
    assert [job.config.crf for job in jobs] == [25, 30]
    assert {job.config.batch_size for job in jobs} == {2}
    assert jobs[0].avatar == Path("demo")


@pytest.mark.parametrize("box", ["10,20,30,40", "10 20 30 40", "(10, 20, 30, 40)", "[10;20;30;40]"])
def test_a_row_says_how_its_avatar_is_loaded(tmp_path: Path, box: str) -> None:
    head = "avatar|speech|out|boxes|box|spec|fps\n"
    (tmp_path / "j.csv").write_text(f"{head}a|b|c.mp4|landmarks|{box}|wav2lip-96|30000/1001\n")
    values = {"avatar": "a", "speech": "b", "out": "c.mp4", "boxes": "landmarks"}
    values |= {"box": [10, 20, 30, 40], "spec": "wav2lip-96", "fps": 29.97}
    (tmp_path / "j.jsonl").write_text(json.dumps(values))
    (one,), (two,) = lnb.read_jobs(tmp_path / "j.csv"), lnb.read_jobs(tmp_path / "j.jsonl")
    for job in (one, two):
        assert (job.boxes, job.box, job.spec) == ("landmarks", (10, 20, 30, 40), "wav2lip-96")
    assert (one.fps, two.fps) == ("30000/1001", 29.97)


@pytest.mark.parametrize(
    "content",
    [
        "avatar,speech,out\ra,b,c.mp4\r",
        "AVATAR;Speech; out \na;b;c.mp4\n",
        "avatar,speech,out,,\na,b,c.mp4,,\n,,,,\n",
        'avatar,speech,out\n"a","b","c.mp4"\n',
    ],
)
def test_what_spreadsheets_make_of_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "j.csv").write_bytes(content.encode())
    assert lnb.read_jobs(tmp_path / "j.csv") == [
        lnb.ClipJob(tmp_path / "a", tmp_path / "b", tmp_path / "c.mp4")
    ]


def test_a_hundred_thousand_rows(tmp_path: Path) -> None:
    rows = "".join(f"person,{n}.wav,out/{n}.mp4\n" for n in range(100_000))
    (tmp_path / "j.csv").write_text("avatar,speech,out\n" + rows)
    assert len(lnb.read_jobs(tmp_path / "j.csv")) == 100_000
