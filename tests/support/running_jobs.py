"""Helpers to observe jobs while they run."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.live_server import LiveServer
from tests.support.waiting import wait_until

STEPS = 60


class WaitingClient:
    """A client that waits for its pictures in a separate thread and keeps the `reply`."""

    def __init__(self, order: Callable[[], Any]) -> None:
        self.reply: Any = None
        self._order = order
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self) -> None:
        self.reply = self._order()

    def wait_for_reply(self) -> Any:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.reply


def get_progress(live: LiveServer) -> Any:
    return live.get("/sdapi/v1/progress").json()


@contextmanager
def run_until_step(live: LiveServer, order: Callable[[], Any], *, step: int = 1) -> Iterator[WaitingClient]:
    """Yield a client whose job has reached this step; interrupt the job on exit."""
    waiting = WaitingClient(order)
    try:
        wait_until(lambda: get_progress(live)["state"]["sampling_step"] >= step or not waiting.thread.is_alive())
        assert waiting.thread.is_alive(), "it ended before anybody could look"
        yield waiting
    finally:
        wait_until(lambda: not waiting.thread.is_alive() or not live.post("/sdapi/v1/interrupt").json())
        waiting.wait_for_reply()
