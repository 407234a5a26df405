"""Who wants to be told of a job's end is told: signed, tried again for hours, and after a restart as well."""

import asyncio
import base64
import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mflux_api.errors import MfluxError
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import JobQueue
from mflux_api.jobs.rows import find
from mflux_api.logs import event
from mflux_api.net.fetching import Fetcher

# Seconds to wait after each attempt that failed; after the last it is given up.
BACKOFF = (5.0, 30.0, 300.0, 1800.0, 7200.0)
ENDS = frozenset({"complete", "failed", "cancelled"})
ANSWER_BYTES = 64 * 1024
ATTEMPT_SECONDS = 15.0
LONGEST_SLEEP = 60.0
BATCH = 20
FINAL = "jobs.state IN ('completed', 'failed', 'cancelled')"
# What a dialect tells of a job, for the server's address as its client saw it.
Shape = Callable[[Job, str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Delivery:
    job: Job
    attempts: int


def due(db: sqlite3.Connection, now: float) -> list[Delivery]:
    """Ended jobs whose webhook is to be told now."""
    rows = db.execute(
        f"""SELECT deliveries.job, deliveries.attempts FROM deliveries JOIN jobs ON jobs.id = deliveries.job
        WHERE deliveries.state = 'waiting' AND deliveries.due <= ? AND {FINAL} ORDER BY deliveries.due LIMIT ?""",
        (now, BATCH),
    ).fetchall()
    return [Delivery(find(db, row["job"]), row["attempts"]) for row in rows]


def settle(db: sqlite3.Connection, job_id: str, state: str, next_try: float, error: str) -> None:
    db.execute(
        "UPDATE deliveries SET state = ?, attempts = attempts + 1, due = ?, error = ? WHERE job = ?",
        (state, next_try, error, job_id),
    )


class Webhooks:
    """`shapes`: by dialect. Only public addresses are told, as only such are fetched from."""

    def __init__(self, queue: JobQueue, fetcher: Fetcher, shapes: Mapping[str, Shape]) -> None:
        self.queue = queue
        self.fetcher = fetcher
        self.shapes = shapes

    async def work(self) -> None:
        """Tell of jobs for ever, as they end."""
        with self.queue.events.listen(None) as box:
            while not self.queue.closing:
                for delivery in await self.queue.store.run(due, time.time()):
                    await self._deliver(delivery)
                await self._woken(box)

    async def _woken(self, box: Any) -> None:
        """Return after the end of a job, or when a failed attempt may be due again."""
        try:
            async with asyncio.timeout(min(BACKOFF[0], LONGEST_SLEEP)):
                async for told in box:
                    if told.name in ENDS:
                        return
                # Dropped as a slow listener: the clock wakes as well.
                await asyncio.sleep(LONGEST_SLEEP)
        except TimeoutError:
            return

    async def _deliver(self, delivery: Delivery) -> None:
        job = delivery.job
        error = await self._attempt(job)
        last = delivery.attempts + 1 >= len(BACKOFF)
        state = "delivered" if not error else "failed" if last else "waiting"
        wait = BACKOFF[min(delivery.attempts, len(BACKOFF) - 1)]
        await self.queue.store.run(settle, job.id, state, time.time() + wait, error)
        event("webhook", id=job.id, state=state, attempt=delivery.attempts + 1, error=error)

    async def _attempt(self, job: Job) -> str:
        """Why it failed; empty when it was taken."""
        note = job.request.note
        try:
            body = json.dumps(await self.shapes[note["dialect"]](job, note["base"])).encode()
            headers = {"Content-Type": "application/json", **signed(job.id, body, note.get("secret", ""))}
            async with asyncio.timeout(ATTEMPT_SECONDS):
                answer = await self.fetcher.send("POST", note["webhook"], headers, body, ANSWER_BYTES)
        except MfluxError as error:
            return error.message
        except TimeoutError:
            return f"no answer within {ATTEMPT_SECONDS:g} seconds"
        # A redirect is not followed: the receiver has named another address.
        return "" if 200 <= answer.status < 300 else f"answered with status {answer.status}"


def signed(name: str, body: bytes, secret: str) -> dict[str, str]:
    """Headers that let a receiver check who sent it and when (Standard Webhooks 1.0), and the bare secret, as the
    documents' users expect it. Without a secret nothing is signed."""
    moment = str(int(time.time()))
    headers = {"Webhook-Id": name, "Webhook-Timestamp": moment}
    if not secret:
        return headers
    key = _key(secret)
    digest = hmac.new(key, f"{name}.{moment}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode('ascii')}"
    return {**headers, "Webhook-Signature": signature, "X-Webhook-Secret": secret}


def _key(secret: str) -> bytes:
    """Standard Webhooks' own secrets are base64 after a prefix; any other is the key itself."""
    if secret.startswith("whsec_"):
        with suppress(ValueError):
            return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    return secret.encode()
