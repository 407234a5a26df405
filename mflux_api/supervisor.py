"""Run the server's long-lived tasks: what fails is logged, and started again after a growing pause."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Literal

from mflux_api.logs import log_error

# Seconds before a task that failed is started again. The last one is used for all further failures.
PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)
# A task that ran this long before it failed begins with the first pause again. In seconds.
STEADY_SECONDS = 300.0
TaskState = Literal["running", "restarting", "finished"]
Work = Callable[[], Coroutine[None, None, None]]


@dataclass
class SupervisedTask:
    """The state of a task. `restarts`: how often it was started again. `error`: why it failed last, empty if never."""

    name: str
    state: TaskState = "running"
    restarts: int = 0
    error: str = ""


class Supervisor:
    """Starts tasks and restarts those that fail. A task that returns has done its work and is not restarted.

    `on_change` is called when a task starts, fails or ends.
    """

    def __init__(self, on_change: Callable[[SupervisedTask], None], pauses: tuple[float, ...] = PAUSES) -> None:
        self.on_change = on_change
        self.pauses = pauses
        self.tasks: dict[str, SupervisedTask] = {}
        self._running: list[asyncio.Task[None]] = []

    def start(self, name: str, work: Work) -> None:
        """Run `work` in the background until it returns or `stop` is called."""
        task = self.tasks[name] = SupervisedTask(name)
        self._running.append(asyncio.create_task(self._run(task, work), name=name))

    def cancel(self) -> None:
        """Cancel all tasks, without waiting for their end."""
        for task in self._running:
            task.cancel()

    async def wait_ended(self) -> None:
        """Wait until all tasks have ended."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _run(self, task: SupervisedTask, work: Work) -> None:
        failures = 0
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self.on_change(task)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - the boundary of the server's background tasks
                failures = 1 if loop.time() - started > STEADY_SECONDS else failures + 1
                task.state, task.error = "restarting", f"{type(error).__name__}: {error}"
                self.on_change(task)
                pause = self.pauses[min(failures, len(self.pauses)) - 1]
                log_error("task.failed", error, task=task.name, restart_seconds=pause)
            else:
                task.state = "finished"
                self.on_change(task)
                return
            await asyncio.sleep(pause)
            task.state = "running"
            task.restarts += 1
