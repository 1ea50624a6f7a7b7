"""What each field's metadata says of it, for all fields there are."""

from dataclasses import Field, fields, replace
from typing import Any

import pytest

import lipsync_nb as lnb
from lipsync_nb.config.render_config import kept_by, option_choices, swept_fields
from lipsync_nb.errors import ConfigError

FIELDS = {option.name: option for option in fields(lnb.RenderConfig)}
BASE = lnb.RenderConfig(feature_cache="on", provider="cpu")


def another(option: Field[Any]) -> Any:
    """A value of a field that is not the base's."""
    now = getattr(BASE, option.name)
    if isinstance(option.default, bool):
        return not now
    choices = [choice for choice in option_choices(option.name) if choice != now]
    # CUDA is not there everywhere, float16 is for GPUs.
    choices = [choice for choice in choices if choice not in ("cuda", "fp16")]
    return choices[0] if choices else max(2, now - 1)


def held(avatar: lnb.Avatar, speech: lnb.Speech, config: lnb.RenderConfig) -> tuple[int, int]:
    """Which template and which features a render uses, once it was opened."""
    stream = lnb.FrameStream(avatar, speech, config, for_video=True)
    return id(stream.template), id(getattr(stream.generator, "_features", None))


@pytest.mark.parametrize("name", FIELDS)
def test_only_fields_that_say_so_change_what_is_kept(
    name: str, avatar: lnb.Avatar, speech: lnb.Speech
) -> None:
    """Sweeps and searches render on one avatar where the metadata says that they can."""
    own = replace(avatar)
    config = replace(BASE, **{name: another(FIELDS[name])})
    says = FIELDS[name].metadata["keeps"]
    assert says in ("nothing", "template", "features")
    assert (kept_by(config) == kept_by(BASE)) is (says == "nothing")
    if says == "nothing":
        before = held(own, speech, BASE)
        assert held(own, speech, config) == before == held(own, speech, BASE)


def test_sweeps_know_all_fields_but_those_of_a_measurement() -> None:
    assert set(FIELDS) - set(swept_fields()) == {"max_frames", "warmup"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_says_what_it_is(name: str) -> None:
    metadata = FIELDS[name].metadata
    assert len(metadata["help"]) > 15
    assert metadata["group"] in ("speed", "network", "template", "output")
    with pytest.raises(ConfigError, match=f"^{name}: found"):
        lnb.RenderConfig(**{name: object()})
