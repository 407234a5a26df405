"""What a stage says while it runs: the step, what was measured, and when it will be done."""

import time
from collections import defaultdict

import numpy as np


class Progress:
    """Collects measurements and prints their means now and then."""

    def __init__(self, stage: str, step: int, steps: int, every: int) -> None:
        self.stage, self.first, self.steps, self.every = stage, step, steps, every
        self.start = time.monotonic()
        self.found: dict[str, list[float]] = defaultdict(list)

    def note(self, step: int, measured: dict[str, float]) -> None:
        """Take the measurements of the step that was done; every so many steps print."""
        for name, value in measured.items():
            self.found[name].append(value)
        if step % self.every and step != self.steps:
            return
        pace = (time.monotonic() - self.start) / max(step - self.first, 1)
        means = " ".join(f"{name} {np.mean(values):.4f}" for name, values in self.found.items())
        left = pace * (self.steps - step)
        print(f"{self.stage} {step}/{self.steps} {means} | {pace:.2f} s a step, {left / 60:.0f} min left", flush=True)
        self.found.clear()


class Deadline:
    """When this call must stop, whatever is left to do."""

    def __init__(self, seconds: float | None) -> None:
        self.end = time.monotonic() + seconds if seconds else None

    def passed(self) -> bool:
        """True when the time is up."""
        return self.end is not None and time.monotonic() > self.end
