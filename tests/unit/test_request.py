from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mflux_api.errors import InvalidRequest
from mflux_api.request import GenerateRequest

VALID: dict[str, Any] = {
    "prompt": "a red circle",
    "negative_prompt": "",
    "width": 64,
    "height": 128,
    "steps": 4,
    "guidance": 1.0,
    "seeds": (1,),
}
PICTURE = Image.new("RGB", (64, 64))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": None}, "prompt must be text, not NoneType."),
        ({"negative_prompt": 3}, "negative_prompt must be text, not int."),
        ({"width": 0}, "width must be a multiple of 16 from 64 up, not 0."),
        ({"width": 72}, "width must be a multiple of 16 from 64 up, not 72."),
        ({"height": 48}, "height must be a multiple of 16 from 64 up, not 48."),
        ({"height": 64.0}, "height must be a multiple of 16 from 64 up, not 64.0."),
        ({"height": True}, "height must be a multiple of 16 from 64 up, not True."),
        ({"steps": 0}, "steps must be 1 or more, not 0."),
        ({"steps": 1.5}, "steps must be 1 or more, not 1.5."),
        ({"guidance": -1}, "guidance must be a number from 0 up, not -1."),
        ({"guidance": float("nan")}, "guidance must be a number from 0 up, not nan."),
        ({"guidance": "4"}, "guidance must be a number from 0 up, not '4'."),
        ({"source": PICTURE, "strength": 1.1}, "strength must be between 0 (keep) and 1 (ignore), not 1.1."),
        ({"strength": float("inf")}, "strength must be between 0 (keep) and 1 (ignore), not inf."),
        ({"seeds": ()}, "At least one seed is needed: one picture is painted for each."),
        ({"seeds": (-1,)}, "A seed must be an integer from 0 to 2^64-1, not -1."),
        ({"seeds": (2**64,)}, f"A seed must be an integer from 0 to 2^64-1, not {2**64}."),
        ({"seeds": (1, "2")}, "A seed must be an integer from 0 to 2^64-1, not '2'."),
        ({"mask": PICTURE}, "A mask needs the picture it belongs to: pass image as well."),
        (
            {"latents": np.zeros((1, 128, 4, 4), np.float32)},
            "latents must have the shape (1, channels, 8, 4) for this size and these seeds, not (1, 128, 4, 4).",
        ),
        (
            {"latents": np.full((1, 128, 8, 4), np.nan, np.float32)},
            "latents hold a value that is not finite.",
        ),
    ],
)
def test_a_bad_field_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        GenerateRequest(**{**VALID, **change})
    assert caught.value.message == message
    assert caught.value.code == "INVALID_REQUEST"
    assert caught.value.details["field"] in {*change, "seeds"}


def test_the_extremes_are_accepted() -> None:
    request = GenerateRequest(**{**VALID, "steps": 1, "guidance": 0, "seeds": (0, 2**64 - 1), "width": 4096})
    assert request.seeds == (0, 2**64 - 1)


wild = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from(["width", "height", "steps", "guidance", "strength", "prompt"]), wild))
def test_whatever_is_passed_either_fits_or_is_refused_in_words(change: dict[str, Any]) -> None:
    try:
        request = GenerateRequest(**{**VALID, **change})
    except InvalidRequest:
        return
    assert request.width % 16 == 0
    assert request.steps >= 1
