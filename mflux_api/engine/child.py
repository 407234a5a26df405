"""The engine process: one thread paints, another listens. It ends when the server's end of the line closes."""

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

# The server decides what an interrupt means, and it ends this process itself.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ServerConnection:
    """The child's end: commands in order, and wishes about the painting: an end of it or of a picture, a look."""

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
        """Whether the picture is to end now. A skip is for one picture, an interrupt for all of them."""
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
                # The server is gone: whatever is being painted, nobody will see it.
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
    """Let the server and everything else go first: on Linux the CPU may be what paints, and it takes every core."""
    if sys.platform == "linux":
        # All threads: BLAS has its own already. Later ones inherit it.
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
    """Carry out a command; whether it was stopped."""
    with closing(engine.run_command(command, line.take_early_stop, line.watched.is_set)) as replies:
        for reply in replies:
            line.send(reply)
            if line.stop.is_set():
                return True
    return False


if __name__ == "__main__":
    main(int(sys.argv[1]))
