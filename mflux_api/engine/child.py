"""The engine process. One thread paints, another listens. The process exits when the server's socket closes."""

import os
import queue
import signal
import socket
import sys
import threading
import traceback
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from mflux_api.errors import MfluxError, strip_folders
from mflux_api.ipc import transport
from mflux_api.ipc.messages import (
    Command,
    CommandCrashed,
    CommandDone,
    CommandRefused,
    EngineSetup,
    Reply,
    ShowPreviews,
    StopPainting,
)
from mflux_api.request import EarlyStop

if TYPE_CHECKING:
    from mflux_api.engine.engine import Engine

# The server handles interrupts, and ends this process itself.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServerConnection:
    """The child's end of the socket.

    Queues commands in order, and sets flags for messages about the current painting: stop it, skip a picture,
    interrupt all pictures, show previews.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self.stop = threading.Event()
        self.skip = threading.Event()
        self.interrupt = threading.Event()
        self.watched = threading.Event()
        self.setup: EngineSetup = transport.receive_message(connection)
        threading.Thread(target=self._listen, daemon=True, name="listener").start()

    def send(self, reply: Reply) -> None:
        self.connection.sendall(transport.pack_message(reply))

    def take_early_stop(self) -> EarlyStop | None:
        """Return the early stop that was requested, or None. A skip ends one picture, an interrupt all of them."""
        if self.interrupt.is_set():
            return EarlyStop.INTERRUPT
        if self.skip.is_set():
            self.skip.clear()
            return EarlyStop.SKIP
        return None

    def _listen(self) -> None:
        while True:
            try:
                message = transport.receive_message(self.connection)
            except (EOFError, OSError):
                # The server is gone, so there is no client for the result.
                os._exit(0)
            if isinstance(message, StopPainting):
                self.stop.set()
            elif isinstance(message, ShowPreviews):
                self.watched.set()
            elif isinstance(message, EarlyStop):
                (self.skip if message is EarlyStop.SKIP else self.interrupt).set()
            else:
                for wish in (self.stop, self.skip, self.interrupt, self.watched):
                    wish.clear()
                self.commands.put(message)


def main(descriptor: int) -> None:
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    line = ServerConnection(socket.socket(fileno=descriptor))
    if line.setup.low_priority:
        _lower_priority()
    from mflux_api.engine.engine import Engine

    engine = Engine(line.setup)
    line.send(engine.describe_engine())
    while True:
        _run_command(engine, line, line.commands.get())


def _lower_priority() -> None:
    """Let other processes go first. On Linux the CPU may do the painting, and it then uses every core."""
    if sys.platform == "linux":
        # Set it on all threads, because BLAS has started its own already. Later threads inherit it.
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))


def _run_command(engine: "Engine", line: ServerConnection, command: Command) -> None:
    try:
        stopped = _send_replies(engine, line, command)
    except MfluxError as error:
        line.send(engine.report_memory())
        shown = strip_folders(error, command.private_folders)
        line.send(CommandRefused(shown.code, shown.message, dict(shown.details)))
    except Exception:  # noqa: BLE001 - the boundary of the process: the next command must work
        line.send(engine.report_memory())
        line.send(CommandCrashed(traceback.format_exc()))
    else:
        line.send(engine.report_memory())
        line.send(CommandDone(stopped))


def _send_replies(engine: "Engine", line: ServerConnection, command: Command) -> bool:
    """Run a command and send its replies. Returns True if it was stopped."""
    with closing(engine.run_command(command, line.take_early_stop, line.watched.is_set)) as replies:
        for reply in replies:
            line.send(reply)
            if line.stop.is_set():
                return True
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
