"""The server's handle of the engine process: start it, send commands, detect its death, stop it."""

import asyncio
import re
import socket
import sys
import time
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing
from pathlib import Path
from typing import Any

from mflux_api import errors
from mflux_api.errors import EngineDied, EngineStuck, GenerationFailed, MfluxError, OutOfMemory
from mflux_api.ipc import transport
from mflux_api.ipc.messages import (
    Command,
    CommandCrashed,
    CommandDone,
    CommandRefused,
    EngineMemory,
    EngineSetup,
    FinishedPicture,
    PaintCommand,
    Ready,
    Reply,
    ShowPreviews,
    StopPainting,
)
from mflux_api.logs import log_event, log_warning
from mflux_api.request import EarlyStop
from mflux_api.resources import make_child_environ

# Do not match "malloc" alone: macOS writes harmless MallocStackLogging lines.
ALLOCATION = re.compile(r"[Uu]nable to allocate|Attempting to allocate|Insufficient Memory|out of memory|bad_alloc")
LAST_LINES = 20
SIGKILLED = -9
START_SECONDS = 120.0
NOTHING_HELD = EngineMemory(active=0, cached=0, peak=0, loaded=())


class EngineProcess:
    """One engine process, started when it is first needed and again after it died.

    `max_silence_seconds`: after how many seconds without a reply a working engine counts as stuck and is killed.
    """

    def __init__(self, setup: EngineSetup, max_silence_seconds: float) -> None:
        self.setup = setup
        self.max_silence_seconds = max_silence_seconds
        self.memory = NOTHING_HELD
        self.ready: Ready | None = None
        # Kept while no engine runs, unlike `ready`.
        self.last_ready: Ready | None = None
        self.start_count = 0
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._inbox = transport.Inbox()
        self._last_used = time.monotonic()
        # Set while the engine has a painting to do. A message about a painting that comes earlier would be lost.
        self.painting = asyncio.Event()
        self._stderr_lines: deque[str] = deque(maxlen=LAST_LINES)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last command ended; 0 while the engine works or does not run."""
        return 0.0 if self._process is None or self._lock.locked() else time.monotonic() - self._last_used

    async def start(self) -> Ready:
        """Start the process unless it runs. Raises EngineDied if it cannot start."""
        async with self._lock:
            ready = await self._ensure_started()
            self._last_used = time.monotonic()
            return ready

    async def stream_replies(self, command: Command) -> AsyncGenerator[Reply, None]:
        """Run a command and yield its replies, except CommandDone and EngineMemory.

        Closing the generator stops the command after its current step. Raises the engine's own errors, EngineDied,
        EngineStuck, OutOfMemory and GenerationFailed.
        """
        async with self._lock:
            await self._ensure_started()
            self._send(command)
            pictures = len(command.request.seeds) if isinstance(command, PaintCommand) else 0
            if pictures:
                self.painting.set()
            finished = False
            try:
                async with aclosing(self._iter_replies()) as replies:
                    async for reply in replies:
                        pictures -= isinstance(reply, FinishedPicture)
                        if not pictures:
                            self.painting.clear()
                        yield reply
                finished = True
            except MfluxError:
                finished = True
                raise
            finally:
                try:
                    if not finished:
                        await self._wait_painting_stopped()
                finally:
                    self.painting.clear()
                    self._last_used = time.monotonic()

    async def run_command(self, command: Command) -> None:
        """Run a command and discard its replies."""
        async with aclosing(self.stream_replies(command)) as replies:
            async for _ in replies:
                pass

    def stop_painting(self) -> None:
        """Ask the engine to end the painting after its step. The command then ends normally. A load is not stopped."""
        self._send_while_painting(StopPainting())

    def stop_early(self, how: EarlyStop) -> None:
        """Ask the engine to end the current picture, or all pictures, and return them as far as they are painted."""
        self._send_while_painting(how)

    def show_previews(self) -> None:
        """Ask the engine for a preview of every further step of the painting."""
        self._send_while_painting(ShowPreviews())

    def _send_while_painting(self, message: StopPainting | EarlyStop | ShowPreviews) -> None:
        """Send a message about the current painting. Does nothing if there is none."""
        if self._transport is not None and self.painting.is_set():
            self._transport.write(transport.pack_message(message))

    async def stop(self) -> None:
        """Kill the process to free its memory, whatever it is doing. The next command starts a new one."""
        process, self._process = self._process, None
        # Reset before the first await: a new process may be started meanwhile.
        self._reset_connection()
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        await process.wait()

    async def _ensure_started(self) -> Ready:
        if self._process is None or self._process.returncode is not None or self.ready is None:
            await self.stop()
            await self._spawn()
            self.ready = self.last_ready = await self._wait_reply(START_SECONDS)
            log_event("engine.ready", pid=self.pid, device=self.ready.device, chip=self.ready.chip, mlx=self.ready.mlx)
        return self.ready

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as undo:
            undo.callback(ours.close)
            try:
                self._process = await _launch_process(theirs)
            except OSError as error:
                raise EngineDied(f"The engine process cannot be started: {error.strerror}.") from error
            undo.pop_all()
        self.start_count += 1
        self._kills_before = _count_kernel_kills()
        self._transport, self._inbox = await asyncio.get_running_loop().create_connection(transport.Inbox, sock=ours)
        self._stderr_lines.clear()
        self._stderr_task = asyncio.create_task(self._log_stderr(self._process))
        self._send(self.setup)

    async def _log_stderr(self, process: asyncio.subprocess.Process) -> None:
        """Log the process's standard error, and keep its last lines to find the cause of a death."""
        assert process.stderr is not None
        while line := await _read_line(process.stderr):
            text = line.decode("utf-8", "replace").rstrip()
            self._stderr_lines.append(text)
            log_warning("engine.stderr", text=text)
        if process is self._process and not self._lock.locked():
            # The process ended while it was idle. Nothing else detects this.
            self._reset_connection()

    def _send(self, message: object) -> None:
        if self._transport is None:
            raise EngineDied("The engine is not running.")
        self._transport.write(transport.pack_message(message))

    async def _iter_replies(self) -> AsyncGenerator[Reply, None]:
        while True:
            reply = await self._wait_reply(self.max_silence_seconds)
            match reply:
                case CommandDone():
                    return
                case EngineMemory():
                    self.memory = reply
                case _:
                    yield reply

    async def _wait_reply(self, seconds: float) -> Any:
        """Wait for the next reply. Raises the error of an error reply.

        Raises EngineStuck after `seconds` without a reply, and EngineDied or OutOfMemory if the process has ended.
        """
        try:
            async with asyncio.timeout(seconds):
                reply = await self._inbox.receive()
        except TimeoutError:
            await self.stop()
            raise EngineStuck(f"The engine said nothing for {seconds:g} seconds and was ended.") from None
        except EOFError:
            raise await self._find_cause_of_death() from None
        if isinstance(reply, CommandRefused):
            raise errors.from_code(reply.code, reply.message, reply.details)
        if isinstance(reply, CommandCrashed):
            log_warning("engine.crashed", trace=reply.trace)
            raise GenerationFailed("The picture could not be painted: an internal error, described in the log.")
        return reply

    async def _wait_painting_stopped(self) -> None:
        """Stop a command that its caller has abandoned, and wait until the engine is free for the next one."""
        self.stop_painting()
        try:
            async with aclosing(self._iter_replies()) as replies:
                async for _ in replies:
                    pass
        except MfluxError as error:
            log_event("engine.stopped", code=error.code)
        except asyncio.CancelledError:
            # The remaining replies will not be read.
            await self.stop()
            raise

    async def _find_cause_of_death(self) -> MfluxError:
        process = self._process
        if process is None:
            return EngineDied("The engine was ended.")
        # The socket closes shortly before the process ends.
        code = await process.wait()
        await asyncio.wait([self._stderr_task], timeout=1)
        killed_for_memory = code == SIGKILLED and _count_kernel_kills() > self._kills_before
        words = "\n".join(self._stderr_lines)
        await self.stop()
        if killed_for_memory or ALLOCATION.search(words):
            return OutOfMemory(
                "Insufficient memory. Try using a quantized model or low_ram mode",
                suggestion="Use flux2-klein-4b-mlx-4bit or set low_ram=true",
            )
        return EngineDied(f"The engine process ended unexpectedly (exit code {code}).", exit_code=code)

    def _reset_connection(self) -> None:
        if self._transport is not None:
            self._transport.close()
        self._transport, self.ready, self.memory = None, None, NOTHING_HELD


async def _launch_process(theirs: socket.socket) -> asyncio.subprocess.Process:
    # Use a process group of its own, so that Ctrl-C in the terminal reaches only the server. Do not use a session of
    # its own: Linux would give it half of the machine regardless of the engine's priority (docs/traps.md).
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "mflux_api.engine.child", str(theirs.fileno())),
        pass_fds=(theirs.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=make_child_environ(),
        process_group=0,
    )


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        # The stream has dropped this line and continues after it.
        return b"(a line too long to repeat)"


def _count_kernel_kills() -> int:
    """Return how many processes Linux has killed for lack of memory since boot; 0 on other systems."""
    vmstat = Path("/proc/vmstat")
    text = vmstat.read_text(encoding="ascii") if vmstat.is_file() else ""
    found = re.search(r"^oom_kill (\d+)$", text, flags=re.MULTILINE)
    return int(found[1]) if found else 0
