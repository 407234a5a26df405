"""A request is unchanged after it is stored in a row and read back."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.jobs.database.serialization import pack_request, unpack_request
from mflux_api.request import Hires, InpaintOptions, LoraUse, PaintOptions
from tests.support.jobs import REQUEST

# A request as version 1 of the database stored it.
EARLIER = (
    '{"prompt": "a red fox", "negative_prompt": "", "width": 64, "height": 64, "steps": 2, "guidance": 1.0, '
    '"seeds": [7], "strength": 1.0, "loras": [{"path": "/loras/oil.safetensors", "scale": 0.5}]}'
)
texts = st.text(st.characters(codec="utf-8"))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, texts)


def every(kind: type[Any]) -> st.SearchStrategy[Any]:
    """A strategy for objects of a dataclass, with arbitrary values in all fields, future ones included."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{field.name: values(hints[field.name]) for field in dataclasses.fields(kind)})


def values(hint: Any) -> st.SearchStrategy[Any]:
    if dataclasses.is_dataclass(hint):
        return every(typing.cast("type[Any]", hint))
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if typing.get_origin(hint) is tuple:
        return st.tuples(*map(values, arguments))
    if typing.get_origin(hint) in {dict, Mapping}:
        return st.dictionaries(*map(values, arguments), max_size=3)
    if type(None) in arguments:
        return st.one_of(*map(values, arguments))
    return st.from_type(hint)


@given(every(PaintOptions))
def test_every_craft_comes_back_as_it_was(craft: PaintOptions) -> None:
    request = replace(REQUEST, **craft.options_as_dict())
    assert unpack_request(pack_request(request)) == request


@given(texts, texts, st.lists(st.integers(0, 2**64 - 1), min_size=1), st.lists(every(LoraUse), max_size=3))
def test_the_plain_fields_come_back_as_they_were(
    prompt: str, negative: str, seeds: list[int], loras: list[LoraUse]
) -> None:
    request = replace(REQUEST, prompt=prompt, negative_prompt=negative, seeds=tuple(seeds), loras=tuple(loras))
    assert unpack_request(pack_request(request)) == request


def test_only_what_was_asked_for_is_written() -> None:
    assert json.loads(pack_request(REQUEST))["craft"] == {}
    blurred = replace(REQUEST, retouch=InpaintOptions(blur=(4.0, 4.0)))
    assert json.loads(pack_request(blurred))["craft"] == {"retouch": {"blur": [4.0, 4.0]}}


def test_a_row_of_an_earlier_version_is_read() -> None:
    loras = (LoraUse(path="/loras/oil.safetensors", scale=0.5),)
    assert unpack_request(EARLIER) == replace(REQUEST, loras=loras)


@pytest.mark.parametrize("missing", ["prompt", "negative_prompt", "scale", "resized"])
def test_a_field_that_a_row_does_not_have_is_its_default(missing: str) -> None:
    hires = Hires(width=128, height=128, steps=2, strength=0.5, upscaler="Latent")
    row = json.loads(pack_request(replace(REQUEST, hires=hires)))
    assert missing not in row["craft"]["hires"]
    assert unpack_request(json.dumps(row)).hires == hires
