"""Deliver signed webhooks, with retries over hours and across restarts."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from mflux_api.errors import MfluxError
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import Delivery, DeliveryQueue
from mflux_api.logs import log_event
from mflux_api.net.fetching import Fetcher

# Seconds to wait after each failed attempt. After the last one the delivery is given up.
BACKOFF = (5.0, 30.0, 300.0, 1800.0, 7200.0)
ANSWER_BYTES = 64 * 1024
ATTEMPT_SECONDS = 15.0
# Makes a webhook's payload from a job, the server's base URL as the client saw it, and the event.
MakePayload = Callable[[Job, str, str], Awaitable[dict[str, Any]]]


class Webhooks:
    """Sends the webhooks of jobs. `shapes`: payload functions by dialect.

    Webhooks go through the `Fetcher`: only public addresses and trusted hosts are reached.
    """

    def __init__(self, queue: DeliveryQueue, fetcher: Fetcher, shapes: Mapping[str, MakePayload]) -> None:
        self.queue = queue
        self.fetcher = fetcher
        self.shapes = shapes

    async def work(self) -> None:
        """Deliver webhooks until the server stops."""
        while not self.queue.closing:
            for delivery in await self.queue.due_deliveries():
                await self._deliver(delivery)
            # Wakes when a job with a webhook starts or ends, and after a while for attempts that failed.
            await self.queue.wait_for_deliveries(BACKOFF[0])

    async def _deliver(self, delivery: Delivery) -> None:
        status, error = await self._attempt(delivery)
        last = delivery.attempts + 1 >= len(BACKOFF)
        state = "delivered" if not error else "failed" if last else "waiting"
        wait = BACKOFF[min(delivery.attempts, len(BACKOFF) - 1)]
        next_try = time.time() + wait
        await self.queue.record_attempt(delivery.number, state=state, next_try=next_try, status=status, error=error)
        facts = {"told": delivery.event, "state": state, "attempt": delivery.attempts + 1, "error": error}
        log_event("webhook", id=delivery.job.id, **facts)

    async def _attempt(self, delivery: Delivery) -> tuple[int | None, str]:
        """Send a webhook once. Returns the answer's status and the reason of a failure, empty on success."""
        job, note = delivery.job, delivery.job.request.note
        name = job.id if delivery.event == "completed" else f"{job.id}-{delivery.event}"
        try:
            body = json.dumps(await self.shapes[note["dialect"]](job, note["base"], delivery.event)).encode()
            headers = {"Content-Type": "application/json", **signature_headers(name, body, note.get("secret", ""))}
            async with asyncio.timeout(ATTEMPT_SECONDS):
                answer = await self.fetcher.send("POST", note["webhook"], headers, body, ANSWER_BYTES)
        except MfluxError as error:
            return None, error.message
        except TimeoutError:
            return None, f"no answer within {ATTEMPT_SECONDS:g} seconds"
        # A redirect is not followed and counts as a failure: it leads to an address that the client did not name.
        return answer.status, "" if 200 <= answer.status < 300 else f"answered with status {answer.status}"


def signature_headers(name: str, body: bytes, secret: str) -> dict[str, str]:
    """Return the headers that identify, date and sign a webhook (Standard Webhooks 1.0).

    The plain secret is sent too, in X-Webhook-Secret, as the documented API promises. Without a secret nothing is
    signed.
    """
    moment = str(int(time.time()))
    headers = {"Webhook-Id": name, "Webhook-Timestamp": moment}
    if not secret:
        return headers
    key = _key(secret)
    digest = hmac.new(key, f"{name}.{moment}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode('ascii')}"
    return {**headers, "Webhook-Signature": signature, "X-Webhook-Secret": secret}


def _key(secret: str) -> bytes:
    """Return the HMAC key of a secret: base64 after "whsec_" (Standard Webhooks), else the secret's own bytes."""
    if secret.startswith("whsec_"):
        with suppress(ValueError):
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()
