"""/edge: the API of an edge worker. One endpoint turns a prompt into a PNG, with its cost in the headers."""

import math
from dataclasses import dataclass

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.errors import InvalidRequest, MfluxError, NoSuchRoute
from mflux_api.jobs.job import Job
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_or_cancel
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import KNOWN_STATUSES, Dialect, known_status
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import ORDER_ERRORS, LenientInt

PREFIX = "/edge"
TAG = "edge"
RATIOS = {"1:1": (1024, 1024), "16:9": (1344, 768), "9:16": (768, 1344), "4:3": (1024, 768), "3:4": (768, 1024)}
# Response headers with the cost. Web pages of other origins may read them.
HEADERS = ("X-Cost-USD", "X-Cost-THB", "X-Neurons-Used", "X-Image-Width", "X-Image-Height", "X-Steps", "X-Tiles")
TILE = 512
JOULES_PER_KWH = 3_600_000
STEPS = range(1, 9)
# Neurons are the units of work of that API: 57.6 for a square picture in 4 steps, as in its documentation.
TILE_NEURONS, STEP_NEURONS = 4.8, 9.6


@dataclass(frozen=True)
class Prices:
    """US dollars for a tile of 512x512 pixels and for a step, and Thai baht for a dollar.

    If `usd_per_kwh` is set, the cost is that of the electricity instead: `watts` over the seconds of the job.
    """

    usd_per_tile: float
    usd_per_step: float
    thb_per_usd: float
    usd_per_kwh: float | None
    watts: float

    def cost_usd(self, tiles: int, steps: int, seconds: float) -> float:
        if self.usd_per_kwh is not None:
            return self.usd_per_kwh * self.watts * seconds / JOULES_PER_KWH
        return tiles * self.usd_per_tile + steps * self.usd_per_step


class EdgeRequest(LenientForm):
    """A prompt to turn into a picture."""

    prompt: str = ""
    steps: LenientInt = Field(4, description="1 to 8")
    aspectRatio: str = Field("1:1", description=", ".join(RATIOS))  # noqa: N815 - the name in the API


class EdgeEndpoints:
    """Handlers of the edge API. `model`: the model to use; None for the server's default."""

    def __init__(self, service: JobService, context: HttpContext, model: str | None, prices: Prices) -> None:
        self.service = service
        self.context = context
        self.model = model
        self.prices = prices

    async def generate(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, EdgeRequest)
        if not form.prompt.strip():
            raise InvalidRequest("Prompt is required", field="prompt")
        if form.steps not in STEPS:
            raise InvalidRequest("steps must be from 1 to 8", field="steps")
        if form.aspectRatio not in RATIOS:
            raise InvalidRequest(f"aspectRatio must be one of {', '.join(RATIOS)}", field="aspectRatio")
        width, height = RATIOS[form.aspectRatio]
        order = Order(
            prompt=form.prompt, model=self.model, width=width, height=height, steps=form.steps, owner=get_owner(request)
        )
        job, pictures = await wait_or_cancel(request, self.service.submit_and_wait(order))
        return Response(pictures[0], media_type="image/png", headers=self._cost_headers(job))

    def _cost_headers(self, job: Job) -> dict[str, str]:
        picture, steps = job.pictures[0], job.request.steps
        tiles = math.ceil(picture.width / TILE) * math.ceil(picture.height / TILE)
        dollars = self.prices.cost_usd(tiles, steps, job.seconds or 0.0)
        baht, neurons = dollars * self.prices.thb_per_usd, tiles * TILE_NEURONS + steps * STEP_NEURONS
        values = (f"{dollars:.6f}", f"{baht:.4f}", f"{neurons:.1f}", picture.width, picture.height, steps, tiles)
        return dict(zip(HEADERS, map(str, values), strict=True))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST", path, self.generate, "Words to a PNG", TAG, "image/png", body=EdgeRequest, errors=ORDER_ERRORS
            )
            for path in (PREFIX, f"{PREFIX}/")
        ]


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Return a body with only `error`, and a status that the documentation of the API lists."""
    status = known_status(error, KNOWN_STATUSES - {503})
    words = error.message if status != 500 else "Failed to generate image"
    return JSONResponse({"error": "Not Found" if isinstance(error, NoSuchRoute) else words}, status)


def dialect(*, model: str | None, prices: Prices, requests_per_minute: int) -> Dialect:
    """Describe the dialect. `model`: the model to use; None for the server's default."""
    return Dialect(
        name=TAG,
        prefixes=(PREFIX,),
        endpoints=lambda service, context: EdgeEndpoints(service, context, model, prices).endpoints(),
        error_shape=error_shape,
        exposed_headers=HEADERS,
        requests_per_minute=requests_per_minute,
    )
