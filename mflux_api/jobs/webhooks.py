"""Deliver signed webhooks, with retries over hours and across restarts."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mflux_api.errors import MfluxError
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import Delivery, DeliveryQueue
from mflux_api.logs import log_error, log_event
from mflux_api.net.fetching import Fetcher

# Seconds to wait after each failed attempt. After the last one the delivery is given up.
BACKOFF = (5.0, 30.0, 300.0, 1800.0, 7200.0)
ANSWER_BYTES = 64 * 1024
ATTEMPT_SECONDS = 15.0
# At most this many webhooks are on their way at once, and this many to one host.
SENDING, SENDING_TO_HOST = 64, 8
# A host gets one webhook after the other. One that is not answered for this long lets the next one go. In seconds.
TURN_SECONDS = 0.5
# Makes a webhook's payload from a job, the server's base URL as the client saw it, and the event.
MakePayload = Callable[[Job, str, str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class SentWebhook:
    """A webhook on its way. `started`: time.monotonic() of its start."""

    host: str
    started: float
    task: asyncio.Task[None]


@dataclass(frozen=True)
class Attempt:
    """The result of sending a webhook once.

    `status`: HTTP status of the answer, None without one. `error`: empty on success. `is_hopeless`: another attempt
    would fail too.
    """

    status: int | None
    error: str
    is_hopeless: bool = False


class Webhooks:
    """Sends the webhooks of jobs. `shapes`: payload functions by dialect.

    Webhooks go through the `Fetcher`: only public addresses and trusted hosts are reached.
    """

    def __init__(self, queue: DeliveryQueue, fetcher: Fetcher, shapes: Mapping[str, MakePayload]) -> None:
        self.queue = queue
        self.fetcher = fetcher
        self.shapes = shapes
        # By the numbers of their deliveries.
        self._sending: dict[int, SentWebhook] = {}

    async def work(self) -> None:
        """Deliver webhooks until the server stops. Receivers do not wait for each other."""
        try:
            while not self.queue.closing:
                for delivery in await self.queue.due_deliveries(
                    sending=list(self._sending), busy_hosts=self._busy_hosts(), limit=SENDING - len(self._sending)
                ):
                    self._start(delivery)
                await self._wait_for_more()
            await asyncio.gather(*(webhook.task for webhook in self._sending.values()))
        except asyncio.CancelledError:
            for webhook in self._sending.values():
                webhook.task.cancel()
            raise

    async def _wait_for_more(self) -> None:
        """Wait until a job with a webhook starts or ends, an attempt ends, or a host's turn is over.

        Attempts that failed are found again after a while.
        """
        news = asyncio.create_task(self.queue.wait_for_deliveries(BACKOFF[0]))
        under_way = [webhook.task for webhook in self._sending.values()]
        try:
            await asyncio.wait(
                [news, *under_way],
                timeout=TURN_SECONDS if under_way else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            news.cancel()

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._deliver(delivery))
        self._sending[delivery.number] = SentWebhook(delivery.host, time.monotonic(), task)
        task.add_done_callback(lambda _: self._sending.pop(delivery.number))

    def _busy_hosts(self) -> list[str]:
        """Return the hosts that get no further webhook now: it is not their turn, or too many are on their way."""
        now, counts = time.monotonic(), Counter(webhook.host for webhook in self._sending.values())
        waiting = {webhook.host for webhook in self._sending.values() if now - webhook.started < TURN_SECONDS}
        return [host for host, count in counts.items() if host in waiting or count >= SENDING_TO_HOST]

    async def _deliver(self, delivery: Delivery) -> None:
        """Attempt a delivery and record the result. No failure leaves this method: it would end all deliveries."""
        attempt = await self._attempt(delivery)
        last = delivery.attempts + 1 >= len(BACKOFF) or attempt.is_hopeless
        state = "delivered" if not attempt.error else "failed" if last else "waiting"
        wait = BACKOFF[min(delivery.attempts, len(BACKOFF) - 1)]
        facts = {"told": delivery.event, "state": state, "attempt": delivery.attempts + 1, "error": attempt.error}
        try:
            await self.queue.record_attempt(
                delivery.number, state=state, next_try=time.time() + wait, status=attempt.status, error=attempt.error
            )
        except MfluxError as error:
            log_error("webhook.unrecorded", error, id=delivery.job.id, **facts)
            # It is still due. Without a pause it would be sent again at once.
            await asyncio.sleep(wait)
        else:
            log_event("webhook", id=delivery.job.id, **facts)

    async def _attempt(self, delivery: Delivery) -> Attempt:
        try:
            return await self._send(delivery)
        except MfluxError as error:
            return Attempt(None, error.message)
        except TimeoutError:
            return Attempt(None, f"no answer within {ATTEMPT_SECONDS:g} seconds")
        except Exception as error:  # noqa: BLE001 - a webhook that cannot be made must not end the others
            log_error("webhook.broken", error, id=delivery.job.id)
            return Attempt(None, f"cannot be sent: {type(error).__name__}: {error}", is_hopeless=True)

    async def _send(self, delivery: Delivery) -> Attempt:
        job, note = delivery.job, delivery.job.request.note
        name = job.id if delivery.event == "completed" else f"{job.id}-{delivery.event}"
        body = json.dumps(await self.shapes[note["dialect"]](job, note["base"], delivery.event)).encode()
        headers = {"Content-Type": "application/json", **signature_headers(name, body, note.get("secret", ""))}
        async with asyncio.timeout(ATTEMPT_SECONDS):
            answer = await self.fetcher.send("POST", note["webhook"], headers, body, ANSWER_BYTES)
        # A redirect is not followed and counts as a failure: it leads to an address that the client did not name.
        is_accepted = 200 <= answer.status < 300
        return Attempt(answer.status, "" if is_accepted else f"answered with status {answer.status}")


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
            # An empty key would let anybody sign.
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True) or secret.encode()
    return secret.encode()
