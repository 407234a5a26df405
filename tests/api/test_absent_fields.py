"""A field that is null, empty or left out means the same, in every API whose clients send them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from mflux_api.dialects.bfl import BflRequest
from mflux_api.dialects.edge import EdgeRequest
from mflux_api.dialects.flux2_web import Flux2WebRequest
from mflux_api.dialects.klein import KleinEditRequest, KleinGenerateRequest
from mflux_api.dialects.native.jobs import OrderForm
from mflux_api.dialects.openai import OpenAIRequest
from mflux_api.dialects.replicate.forms import PredictionInput, PredictionRequest
from mflux_api.dialects.sdapi.schema import Img2Img, SingleExtra, Txt2Img
from mflux_api.web.body import validate
from tests.support.live_server import LiveServer
from tests.support.photographs import encode, scene


@dataclass(frozen=True)
class Form:
    """A request body, its required fields, and whether an empty text is a missing field in its API."""

    model: Any
    needed: Mapping[str, object]
    empty: bool = True


WORDS = {"prompt": "x"}
FORMS = {
    "native": Form(OrderForm, WORDS, empty=False),
    "txt2img": Form(Txt2Img, WORDS, empty=False),
    "img2img": Form(Img2Img, WORDS, empty=False),
    "extras": Form(SingleExtra, {"image": "x"}, empty=False),
    "openai": Form(OpenAIRequest, WORDS),
    "klein": Form(KleinGenerateRequest, WORDS),
    "klein edit": Form(KleinEditRequest, WORDS),
    "bfl": Form(BflRequest, WORDS),
    "replicate": Form(PredictionRequest, {"input": {"prompt": "x"}}),
    "replicate input": Form(PredictionInput, WORDS),
    "edge": Form(EdgeRequest, WORDS),
    "flux2-web": Form(Flux2WebRequest, WORDS),
}
CASES = [
    (name, field, value)
    for name, form in FORMS.items()
    for field in form.model.model_fields
    if field not in form.needed
    for value in (None, "")
    if form.empty or value is None
]


@pytest.mark.parametrize(("name", "field", "value"), CASES)
def test_an_absent_field_is_absent_in_any_way(name: str, field: str, value: object) -> None:
    form = FORMS[name]
    given = validate(form.model, {**form.needed, field: value})
    assert given.model_dump() == validate(form.model, dict(form.needed)).model_dump()


OPTIONAL = ("n", "size", "model", "quality", "output_format", "output_compression", "background", "stream", "user")


@pytest.mark.system
def test_a_form_with_empty_fields_is_one_without_them(server: LiveServer) -> None:
    empty = dict.fromkeys((*OPTIONAL, "partial_images", "response_format", "seed", "strength"), "")
    files = [("image", ("a.png", encode(scene(64, 64)), "image/png")), ("mask", ("", b"", "application/octet-stream"))]
    reply = requests.post(
        f"{server.url}/v1/images/edits", data={"prompt": "x", "steps": "1", **empty}, files=files, timeout=60
    )
    assert reply.status_code == 200, reply.text


@pytest.mark.system
@pytest.mark.parametrize("query", ["jobs?status=&limit=&before=", "pictures?search=&model=&before=", "events?preview="])
def test_a_query_with_empty_parameters_is_one_without_them(server: LiveServer, query: str) -> None:
    with requests.get(f"{server.url}/api/v1/{query}", timeout=30, stream=True) as reply:
        assert reply.status_code == 200


@pytest.mark.system
def test_a_prompt_of_null_is_refused_where_one_is_needed(server: LiveServer) -> None:
    for path in ("/v1/images/generations", "/api/v1/generate", "/klein/generate", "/v1/flux2-tiny", "/edge"):
        assert server.post(path, {"prompt": None}).status_code == 400, path
