"""Names of files and folders that look like something else to a shell, ffmpeg or a pattern."""

import shutil
from pathlib import Path

import av
import pytest
from builders import tone_speech, write_origin_avatar, write_synctalk_avatar

from lipsync_nb.__main__ import main

OPTIONS = ["--max-frames", "2", "--no-fuse"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("names")
    write_synctalk_avatar(home / "pictures", 3, (128, 96))
    write_origin_avatar(home / "video", 3, (128, 96))
    tone_speech(home / "speech.wav", 0.5)
    return home


@pytest.fixture(params=["pictures", "video"])
def place(
    request: pytest.FixtureRequest, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The current folder, with an avatar ``person`` of a kind and a speech."""
    shutil.copytree(home / request.param, tmp_path / "person")
    shutil.copy(home / "speech.wav", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(out: Path) -> None:
    with av.open(str(out.resolve())) as container:
        assert sum(1 for _ in container.decode(video=0)) == 2


@pytest.mark.parametrize(
    ("avatar", "speech", "out"),
    [
        ("x:y", "a:b.wav", "1:2.mp4"),
        ("file:x", "http:a.wav", "https:1.mp4"),
        ("%03d", "%d %s.wav", "out%05d.mp4"),
        ("pér sön", "ünï ö.wav", "ö 語.mp4"),
        ("per\nson", "new\nline.wav", "o\nut.mp4"),
        ("a'b\"c", "*?.wav", "[x].mp4"),
        ("./-p", "./-s.wav", "./-o.mp4"),
        ("x,y;z", "a|b.wav", "a&b.mp4"),
        ("p.mp4", "concat:a|b.wav", "pipe:1.mp4"),
    ],
)
def test_odd_names(avatar: str, speech: str, out: str, place: Path) -> None:
    (place / "person").rename(avatar)
    (place / "speech.wav").rename(speech)
    assert main(["render", avatar, speech, out, *OPTIONS]) == 0
    check(place / out)


def test_names_that_begin_with_a_dash(place: Path) -> None:
    (place / "person").rename("-p")
    (place / "speech.wav").rename("-s.wav")
    assert main(["render", *OPTIONS, "--", "-p", "-s.wav", "-o.mp4"]) == 0
    check(place / "-o.mp4")


@pytest.mark.parametrize("out", ["fold:er%d", "frames %05d", "ö"])
def test_odd_names_of_a_folder(out: str, place: Path) -> None:
    assert main(["render", "person", "speech.wav", out, *OPTIONS]) == 0
    assert len(list((place / out).glob("*.jpg"))) == 2


@pytest.mark.parametrize(
    ("inside", "avatar", "up"),
    [(".", ".", ".."), ("models", "..", "../.."), (".", "./", ".."), (".", "../person", "..")],
)
def test_the_avatar_that_one_is_in(
    inside: str, avatar: str, up: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "person" / inside)
    assert main(["render", avatar, f"{up}/speech.wav", f"{up}/out.mp4", *OPTIONS]) == 0
    check(place / "out.mp4")


def test_an_error_of_the_avatar_that_one_is_in_names_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home / "pictures", tmp_path / "person")
    (tmp_path / "person" / "full_body_img" / "1.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path / "person")
    assert main(["render", ".", str(home / "speech.wav"), "../out.mp4", *OPTIONS]) == 2
    picture = tmp_path / "person" / "full_body_img" / "1.jpg"
    assert capsys.readouterr().err == f"lipsync-nb: {picture}: not a readable picture.\n"
