"""/api/v1: past and pending webhook deliveries."""

from typing import Literal, cast
from urllib.parse import urlsplit

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native.wire import WireModel, format_time
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.queue import Delivery
from mflux_api.jobs.service import JobService
from mflux_api.web.body import parse_query
from mflux_api.web.openapi import Endpoint

TAG = "webhooks"
DeliveryEvent = Literal["start", "output", "completed"]
DeliveryState = Literal["waiting", "delivered", "failed", "dropped"]


class DeliveryRow(WireModel):
    """A webhook delivery. `url`: without its query. `state`: failed means given up, dropped means its event never came.

    `status`, `error`: of the last attempt. `next_try`: null before the event and after the last attempt.
    """

    number: int
    job_id: str
    event: DeliveryEvent
    url: str
    state: DeliveryState
    attempts: int
    status: int | None
    error: str | None
    next_try: str | None


class DeliveryList(WireModel):
    """A page of deliveries. `next`: the `before` of the next page; null on the last."""

    deliveries: list[DeliveryRow]
    next: int | None
    total: int


class DeliveriesQuery(WireModel):
    state: DeliveryState | None = None
    limit: int = Field(50, ge=1, le=200)
    before: int | None = Field(None, ge=0, lt=2**63, description="`next` of the page before")


def endpoints(service: JobService) -> list[Endpoint]:
    async def list_deliveries(request: Request) -> Response:
        asked = parse_query(request, DeliveriesQuery)
        page = await service.queue.list_deliveries(asked.state, asked.before, asked.limit)
        following = page.deliveries[-1].number if len(page.deliveries) == asked.limit else None
        content = DeliveryList(
            deliveries=[_build_row(each) for each in page.deliveries], next=following, total=page.total
        )
        return Response(content.model_dump_json(), media_type="application/json")

    path, summary = "/api/v1/webhooks/deliveries", "What webhooks were told, newest first"
    return [
        Endpoint(
            "GET", path, list_deliveries, summary, TAG, DeliveryList, query=DeliveriesQuery, errors=(InvalidRequest,)
        )
    ]


def _build_row(delivery: Delivery) -> DeliveryRow:
    due = delivery.due if delivery.state == "waiting" and delivery.due else None
    url = urlsplit(delivery.job.request.note["webhook"])._replace(query="", fragment="").geturl()
    return DeliveryRow(
        number=delivery.number,
        job_id=delivery.job.id,
        event=cast(DeliveryEvent, delivery.event),
        url=url,
        state=cast(DeliveryState, delivery.state),
        attempts=delivery.attempts,
        status=delivery.status,
        error=delivery.error,
        next_try=format_time(due),
    )
