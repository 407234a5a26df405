"""The edge worker's API: a prompt in, PNG bytes out, and the documented figures in the headers."""

import io
from typing import Any

import pytest
import requests
from PIL import Image

from mflux_api.dialects import edge
from mflux_api.dialects.edge import Prices
from tests.support.live_server import LiveServer, run_server

DOCUMENTED = {"1:1": (1024, 1024), "16:9": (1344, 768), "9:16": (768, 1344), "4:3": (1024, 768), "3:4": (768, 1024)}


@pytest.fixture(scope="module")
def painted(small: LiveServer) -> requests.Response:
    return small.post("/edge", {"prompt": "a red circle", "steps": 1, "aspectRatio": "4:3"})


def test_the_sizes_are_the_documented_ones() -> None:
    assert edge.RATIOS == DOCUMENTED


def test_the_body_is_the_picture(painted: requests.Response) -> None:
    assert (painted.status_code, painted.headers["Content-Type"]) == (200, "image/png")
    with Image.open(io.BytesIO(painted.content)) as image:
        assert (image.format, image.size) == ("PNG", (96, 64))


def test_the_headers_tell_what_it_took(painted: requests.Response) -> None:
    expected = {
        "X-Image-Width": "96",
        "X-Image-Height": "64",
        "X-Steps": "1",
        "X-Tiles": "1",
        "X-Cost-USD": "0.000163",
        "X-Cost-THB": "0.0057",
        "X-Neurons-Used": "14.4",
    }
    assert {name: painted.headers[name] for name in expected} == expected


def test_the_price_is_the_documents_own() -> None:
    prices = Prices(usd_per_tile=0.000053, usd_per_step=0.00011, thb_per_usd=35.0, usd_per_kwh=None, watts=60.0)
    assert f"{prices.cost_usd(4, 1, 1.0):.6f}" == "0.000322"
    assert f"{prices.cost_usd(4, 4, 1.0):.6f}" == "0.000652"
    assert f"{prices.cost_usd(4, 4, 1.0) * prices.thb_per_usd:.4f}" == "0.0228"


def test_the_price_may_be_that_of_the_electricity() -> None:
    prices = Prices(usd_per_tile=1.0, usd_per_step=1.0, thb_per_usd=35.0, usd_per_kwh=0.3, watts=60.0)
    assert prices.cost_usd(4, 4, 3600.0) == pytest.approx(0.3 * 0.06)


@pytest.mark.parametrize("path", ["/edge", "/edge/"])
@pytest.mark.parametrize("body", [{}, {"prompt": ""}, {"prompt": "  "}, {"steps": 4}])
def test_a_prompt_is_required(server: LiveServer, path: str, body: dict[str, Any]) -> None:
    reply = server.post(path, body)
    assert (reply.status_code, reply.json()) == (400, {"error": "Prompt is required"})


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"steps": 9}, {"steps": "x"}, {"aspectRatio": "2:1"}, {"aspectRatio": 1}]
)
def test_what_is_not_documented_is_refused(server: LiveServer, wrong: dict[str, Any]) -> None:
    reply = server.post("/edge", {"prompt": "x", **wrong})
    assert (reply.status_code, list(reply.json())) == (400, ["error"])


@pytest.mark.system
def test_too_many_requests_are_told_to_wait(tmp_path: Any) -> None:
    limits = ("--set", "dialects.edge_requests_per_minute=2", "--root-dialect", "edge")
    with run_server(tmp_path / "output", *limits) as live:
        replies = [live.post("/", {"prompt": ""}) for _ in range(3)]
        assert [reply.status_code for reply in replies] == [400, 400, 429]
        assert int(replies[-1].headers["Retry-After"]) > 0
        # Other dialects are not limited, and GET / still serves the page.
        assert live.post("/api/v1/generate", {}).status_code == 400
        assert live.get("/").status_code == 200
