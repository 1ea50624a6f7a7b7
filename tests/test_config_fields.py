"""What each field's metadata says of it, for all fields there are."""

from dataclasses import Field, fields, replace
from typing import Any

import pytest

import lipsync_nb as lnb
from lipsync_nb.config.render_config import kept_by, option_choices, swept_fields
from lipsync_nb.errors import ConfigError

FIELDS = {option.name: option for option in fields(lnb.RenderConfig)}
BASE = lnb.RenderConfig(
    cache="memory", feature_cache="on", feature_files=False, feature_dtype="float32", provider="cpu"
)
# Some fields decide what is kept only from, or to, certain values.
BASES: dict[str, dict[str, Any]] = {
    "int8_layers": {"precision": "int8"},
    "max_frames": {"max_frames": 2},
}
VALUES: dict[str, Any] = {
    "feature_cache": "off", "feature_cache_mb": 0, "max_frames": 0, "compositing": "network",
    "silence_threshold_db": -40,
}  # fmt: skip
# They choose among frames where features of a few fit, and a megabyte holds all of this network's.
UNSEEN_HERE = {"order", "start_frame"}


def another(option: Field[Any]) -> Any:
    """A value of a field that is not the base's."""
    if option.name in VALUES:
        return VALUES[option.name]
    now = getattr(BASE, option.name)
    if isinstance(option.default, bool):
        return not now
    choices = [choice for choice in option_choices(option.name) if choice != now]
    # CUDA is not there everywhere, float16 is for GPUs.
    choices = [choice for choice in choices if choice not in ("cuda", "fp16")]
    return choices[0] if choices else max(2, now - 1)


def held(avatar: lnb.Avatar, speech: lnb.Speech, config: lnb.RenderConfig) -> tuple[object, ...]:
    """The template and the features that a render uses, once it was opened."""
    stream = lnb.FrameStream(avatar, speech, config, for_video=True)
    return stream.template, getattr(stream.generator, "_features", None)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_say_what_is_kept_for_them(
    name: str, avatar: lnb.Avatar, speech: lnb.Speech
) -> None:
    """Renders with other values of a field find the same in memory, or its metadata says not."""
    own = replace(avatar)
    base = replace(BASE, **BASES.get(name, {}))
    config = replace(base, **{name: another(FIELDS[name])})
    says = FIELDS[name].metadata["keeps"]
    assert says in ("nothing", "template", "features")
    assert (kept_by(config) == kept_by(base)) is (says == "nothing")
    # The objects, not their ids: those of what was let go are given anew.
    first, other, again = (held(own, speech, one) for one in (base, config, base))
    same = [all(a is b for a, b in zip(first, found, strict=True)) for found in (other, again)]
    assert all(same) is (says == "nothing" or name in UNSEEN_HERE)


def test_sweeps_know_all_fields_but_those_of_a_measurement() -> None:
    assert set(FIELDS) - set(swept_fields()) == {"max_frames", "warmup", "resume"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is(name: str) -> None:
    metadata = FIELDS[name].metadata
    assert len(metadata["help"]) > 15
    assert metadata["group"] in ("speed", "network", "template", "mouth", "output")
    with pytest.raises(ConfigError, match=f"^{name}: found"):
        lnb.RenderConfig(**{name: object()})
