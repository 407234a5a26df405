"""Jobs that run while a test looks at them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.server.live import Live

STEPS = 60


class Waiting:
    """A client that waits for its pictures in a thread of its own; `reply`: what it got."""

    def __init__(self, order: Callable[[], Any]) -> None:
        self.reply: Any = None
        self._order = order
        self.thread = threading.Thread(target=self._wait)
        self.thread.start()

    def _wait(self) -> None:
        self.reply = self._order()

    def end(self) -> Any:
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.reply


def progress(live: Live) -> Any:
    return live.get("/sdapi/v1/progress").json()


def until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


@contextmanager
def painting(live: Live, order: Callable[[], Any], *, step: int = 1) -> Iterator[Waiting]:
    """The order once it has come to this step; at the end it is interrupted."""
    waiting = Waiting(order)
    try:
        until(lambda: progress(live)["state"]["sampling_step"] >= step or not waiting.thread.is_alive())
        assert waiting.thread.is_alive(), "it ended before anybody could look"
        yield waiting
    finally:
        until(lambda: not waiting.thread.is_alive() or not live.post("/sdapi/v1/interrupt").json())
        waiting.end()
