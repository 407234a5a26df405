"""The sender of webhooks over a real queue, with receivers that fail in every way: the others get theirs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mflux_api.errors import FetchFailed, StorageFailed
from mflux_api.jobs import webhooks
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import Delivery
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.jobs.webhooks import Webhooks, signature_headers
from mflux_api.net.fetching import HttpResponse
from tests.support.jobs import REQUEST, make_job, make_queue, run_async


class Receivers:
    """Stands in for the network: URLs with `dead` never answer, with `down` cannot be reached."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.changed = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int) -> HttpResponse:
        if "dead" in url:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            self.changed.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.under_way -= 1
        if "down" in url:
            raise FetchFailed("cannot be reached")
        self.told.append(url)
        self.changed.set()
        return HttpResponse(200, {}, b"")

    async def wait_told(self, url: str) -> None:
        await self.wait_until(lambda: url in self.told)

    async def wait_until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


async def describe(job: Job, base: str, event: str) -> dict[str, Any]:
    if job.request.prompt == "odd":
        raise KeyError("a field that this job lacks")
    return {"id": job.id}


@asynccontextmanager
async def run_sender(folder: Path) -> AsyncIterator[tuple[SQLiteQueue, Receivers]]:
    queue, receivers = make_queue(folder), Receivers()
    await queue.open()
    sender = asyncio.create_task(Webhooks(queue, receivers, {"native": describe}).work())  # type: ignore[arg-type]
    try:
        yield queue, receivers
    finally:
        sender.cancel()
        await asyncio.gather(sender, return_exceptions=True)
        await queue.close()


async def cancel_job_with_webhook(queue: SQLiteQueue, url: str, prompt: str = "a circle") -> str:
    note = {"webhook": url, "events": "completed", "dialect": "native", "base": "http://me.test"}
    job = await queue.submit(make_job(request=replace(REQUEST, prompt=prompt, note=note)))
    await queue.cancel(job.id)
    return job.id


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "TURN_SECONDS", 0.02)


@pytest.mark.parametrize("living", ["http://other.test/mine", "http://dead.test:1/mine"])
@run_async
async def test_receivers_that_never_answer_keep_nobody_waiting(tmp_path: Path, living: str) -> None:
    living = living.replace("dead.test", "same.test")
    async with run_sender(tmp_path) as (queue, receivers):
        for number in range(3):
            await cancel_job_with_webhook(queue, f"http://same.test:1/dead{number}")
        await cancel_job_with_webhook(queue, living)
        await receivers.wait_told(living)


@run_async
async def test_a_host_that_never_answers_has_a_few_webhooks_on_their_way_at_most(tmp_path: Path) -> None:
    async with run_sender(tmp_path) as (queue, receivers):
        for _ in range(webhooks.SENDING_TO_HOST + 4):
            await cancel_job_with_webhook(queue, "http://dead.test/")
        await cancel_job_with_webhook(queue, "http://living.test/")
        await receivers.wait_told("http://living.test/")
        await receivers.wait_until(lambda: receivers.most == webhooks.SENDING_TO_HOST)
        await cancel_job_with_webhook(queue, "http://living.test/later")
        await receivers.wait_told("http://living.test/later")
        assert receivers.most == webhooks.SENDING_TO_HOST


async def find_delivery(queue: SQLiteQueue, job_id: str) -> Delivery:
    page = await queue.list_deliveries(None, None, 50)
    return next(each for each in page.deliveries if each.job.id == job_id)


@run_async
async def test_a_webhook_that_cannot_be_made_is_put_aside_with_its_reason(tmp_path: Path) -> None:
    async with run_sender(tmp_path) as (queue, receivers):
        odd = await cancel_job_with_webhook(queue, "http://a.test/odd", prompt="odd")
        await cancel_job_with_webhook(queue, "http://a.test/next")
        await receivers.wait_told("http://a.test/next")
        found = await find_delivery(queue, odd)
        assert (found.state, found.error) == ("failed", "cannot be sent: KeyError: 'a field that this job lacks'")


@run_async
async def test_a_result_that_cannot_be_recorded_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_sender(tmp_path) as (queue, receivers):
        record, failed = queue.record_attempt, asyncio.Event()

        async def fail_once(number: int, **result: Any) -> None:
            if failed.is_set():
                await record(number, **result)
                return
            failed.set()
            raise StorageFailed("The job database cannot be written: is the disk full?")

        monkeypatch.setattr(queue, "record_attempt", fail_once)
        await cancel_job_with_webhook(queue, "http://a.test/first")
        await failed.wait()
        await cancel_job_with_webhook(queue, "http://a.test/second")
        await receivers.wait_told("http://a.test/second")
        assert receivers.told.count("http://a.test/first") == 1


def test_a_secret_may_have_any_letters_but_is_never_an_empty_key() -> None:
    assert signature_headers("id", b"", "schlüssel")["X-Webhook-Secret"] == "schlüssel"
    for secret in ("whsec_", "whsec_====", "whsec_ü"):
        assert webhooks._key(secret) == secret.encode()
