"""Emphasis: embeddings of weighted words are scaled."""

import numpy as np
import pytest

from mflux_api.engine.model import Model
from mflux_api.ipc.messages import Picture
from mflux_api.request import Emphasis, GenerateRequest

TEXT = "a red and blue circle on a white background"
RED = (2, 5)


def redness(model: Model, weight: float | None) -> float:
    """Return the mean of red minus blue over the coloured pixels, -1..1, averaged over three seeds."""
    spans = () if weight is None else (Emphasis(text=TEXT, spans=((*RED, weight),)),)
    request = GenerateRequest(
        prompt=TEXT,
        negative_prompt="",
        width=128,
        height=128,
        steps=2,
        guidance=1.0,
        seeds=tuple(range(3)),
        emphasis=spans,
    )
    painted = [event.array for event in model.pipeline.paint(request) if isinstance(event, Picture)]
    return float(np.mean([_share(pixels) for pixels in painted]))


def _share(pixels: np.ndarray) -> float:
    coloured = pixels.max(-1) - pixels.min(-1) > 0.25
    return float((pixels[..., 0] - pixels[..., 2])[coloured].sum() / max(1, coloured.sum()))


def test_more_weight_on_a_colour_is_more_of_it(tiny: Model) -> None:
    less, usual, more = (redness(tiny, weight) for weight in (0.5, None, 2.0))
    assert less < usual - 0.05
    assert usual + 0.02 < more


def test_a_weight_of_one_changes_nothing(tiny: Model) -> None:
    assert redness(tiny, 1.0) == redness(tiny, None)


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
