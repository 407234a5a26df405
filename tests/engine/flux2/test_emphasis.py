"""Emphasis: embeddings of weighted words are scaled."""

import numpy as np
import pytest

from mflux_api.engine.model import Model
from mflux_api.ipc.messages import Picture
from mflux_api.request import Emphasis, GenerateRequest

TEXT = "a red and blue circle on a white background"
RED = (2, 5)


def paint_weighted(model: Model, weight: float | None) -> np.ndarray:
    """Return the picture with this weight on "red and blue", as values of 0..1."""
    spans = () if weight is None else (Emphasis(text=TEXT, spans=((*RED, weight),)),)
    request = GenerateRequest(
        prompt=TEXT,
        negative_prompt="",
        width=64,
        height=64,
        steps=2,
        guidance=1.0,
        seeds=(3,),
        emphasis=spans,
    )
    (picture,) = (event.array for event in model.pipeline.paint(request) if isinstance(event, Picture))
    return picture


# The embedded model's text encoder says the whole scene at every token, so that a weight moves its pictures a little.
def test_the_further_a_weight_is_from_one_the_more_the_picture_changes(tiny: Model) -> None:
    usual = paint_weighted(tiny, None)
    changes = [float(np.abs(paint_weighted(tiny, weight) - usual).mean()) for weight in (1.2, 2.0, 4.0)]
    assert 0 < changes[0] < changes[1] < changes[2]


def test_a_weight_of_one_changes_nothing(tiny: Model) -> None:
    np.testing.assert_array_equal(paint_weighted(tiny, 1.0), paint_weighted(tiny, None))


@pytest.mark.parametrize("spans", [((0, 1, 2.0),), ((2, 5, 0.0), (10, 14, 3.0))])
def test_only_the_tokens_of_the_words_are_scaled(tiny: Model, spans: tuple[tuple[int, int, float], ...]) -> None:
    conditioning = tiny.pipeline.prompt_encoder
    plain, scaled = (np.array(conditioning.encode(TEXT, chosen)) for chosen in ((), spans))
    factors = np.array(conditioning.make_token_weights(TEXT, spans))[0, :, 0]
    assert set(factors.tolist()) == {1.0, *(weight for *_, weight in spans)}
    np.testing.assert_array_equal(scaled, plain * factors[None, :, None])


def test_emphasis_is_not_remembered_with_the_prompt(tiny: Model) -> None:
    before = np.array(tiny.pipeline.prompt_encoder.encode(TEXT))
    tiny.pipeline.prompt_encoder.encode(TEXT, ((0, 5, 2.0),))
    np.testing.assert_array_equal(np.array(tiny.pipeline.prompt_encoder.encode(TEXT)), before)
