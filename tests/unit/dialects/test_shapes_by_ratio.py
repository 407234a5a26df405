"""The size of a picture whose shape is ordered by a ratio, or by the endpoint."""

import pytest

from mflux_api.dialects.bfl import BflRequest
from mflux_api.dialects.replicate.forms import PredictionInput, parse_size
from mflux_api.errors import InvalidRequest
from mflux_api.request import Upload

WIDE = Upload(b"", 1600, 400)


@pytest.mark.parametrize(
    ("model", "fields", "basis", "size"),
    [
        ("flux-kontext-pro", {"aspect_ratio": "1:1"}, None, (1024, 1024)),
        ("flux-kontext-pro", {"aspect_ratio": "16:9"}, None, (1360, 768)),
        ("flux-kontext-max", {"aspect_ratio": "9:16"}, WIDE, (768, 1360)),
        ("flux-kontext-max", {}, WIDE, (2048, 512)),
        ("flux-kontext-pro", {}, None, (1024, 1024)),
        ("flux-pro-1.1-ultra", {}, None, (1360, 768)),
        ("flux-pro-1.1-ultra", {"aspect_ratio": "21:9"}, None, (1568, 672)),
        ("flux-pro-1.1-ultra", {"aspect_ratio": "1:1", "width": 512, "height": 768}, None, (1024, 1024)),
        ("flux-pro-1.1-ultra", {"aspect_ratio": ""}, None, (1360, 768)),
        ("flux-2-pro", {"aspect_ratio": "3:4"}, None, (880, 1184)),
        ("flux-2-pro", {"aspect_ratio": None}, None, (1024, 768)),
        ("flux-2-pro", {"width": 512, "height": 256}, None, (512, 256)),
        ("flux-pro-1.0-fill", {"image": "x"}, WIDE, (None, None)),
    ],
)
def test_black_forest_labs_ratio_decides_the_shape(
    model: str, fields: dict[str, object], basis: Upload | None, size: tuple[int | None, int | None]
) -> None:
    form = BflRequest.model_validate({"prompt": "x", **fields})
    assert form.choose_size(model, basis) == size


@pytest.mark.parametrize("ratio", ["1", "a:b", "0:1", "1:0", "-1:1", "3:1", "1:3", "1000:1", ":", "1:1:1"])
def test_other_ratios_are_refused(ratio: str) -> None:
    form = BflRequest(prompt="x", aspect_ratio=ratio)
    with pytest.raises(InvalidRequest, match="aspect_ratio"):
        form.choose_size("flux-kontext-pro", None)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"aspect_ratio": "1:1"}, (1024, 1024)),
        ({"aspect_ratio": "1:1", "megapixels": "0.25"}, (512, 512)),
        ({"aspect_ratio": "16:9", "megapixels": "1"}, (1360, 768)),
        ({"aspect_ratio": "match_input_image"}, (None, None)),
    ],
)
def test_replicates_ratio_and_megapixels_decide_the_size(
    fields: dict[str, object], size: tuple[int | None, int | None]
) -> None:
    assert parse_size(PredictionInput.model_validate({"prompt": "x", **fields})) == size
