"""Wait for a fact."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0


def wait_until(holds: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
    """Ask until `holds` returns true. Fails after `seconds`, which are many: the machine may be busy."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"It was not so within {seconds:g} seconds."
        time.sleep(0.02)
