"""Death of the engine process: kills, silence, and faults forced by a script in its place."""

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mflux_api.errors import EngineDied, EngineStuck, OutOfMemory
from mflux_api.ipc.messages import FinishedPicture, PaintCommand, Thumbnail
from mflux_api.models.registry import EMBEDDED_MODELS_DIR
from mflux_api.worker.engine_process import ALLOCATION, EngineProcess
from tests.support.processes import (
    ENDLESS,
    PATIENCE_SECONDS,
    Shared,
    first_step,
    is_gone,
    make_engine,
    paint,
    picture,
    replies,
    run,
    running,
    wait_until_gone,
)
from tests.support.script_engine import replace_engine

pytestmark = pytest.mark.engine_process


def test_an_engine_killed_while_it_paints_is_reported_and_another_paints_on() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                assert engine.pid is not None
                killed = engine.pid
                os.kill(killed, signal.SIGKILL)
                with pytest.raises(EngineDied) as caught:
                    async for _ in said:
                        pass
            assert type(caught.value) is EngineDied
            assert caught.value.details == {"exit_code": -signal.SIGKILL}
            assert engine.memory.loaded == ()
            assert (await picture(engine, paint())).seed == 7
            assert engine.pid != killed
            assert engine.start_count == 2

    run(scenario())


@pytest.mark.slow
def test_an_engine_killed_while_it_has_nothing_to_do_is_started_again() -> None:
    async def scenario() -> None:
        async with running() as engine:
            await engine.start()
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            assert await asyncio.to_thread(wait_until_gone, engine.pid, 5)
            while engine.ready is not None:  # noqa: ASYNC110 - the engine has no event for this
                await asyncio.sleep(0.01)
            assert (await picture(engine, paint())).seed == 7
            assert engine.start_count == 2

    run(scenario())


@pytest.mark.slow
def test_ending_it_while_it_paints_is_an_error_of_that_painting_only() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                pid = engine.pid
                assert pid is not None
                stopping = asyncio.create_task(engine.stop())
                with pytest.raises(EngineDied):
                    async for _ in said:
                        pass
                await stopping
            assert is_gone(pid)
            assert engine.pid is None
            assert (await picture(engine, paint())).seed == 7

    run(scenario())


def test_an_engine_that_says_nothing_for_too_long_is_ended() -> None:
    async def scenario() -> None:
        async with running() as engine:
            async with aclosing(engine.stream_replies(paint(steps=ENDLESS))) as said:
                await first_step(said)
                assert engine.pid is not None
                pid = engine.pid
                os.kill(pid, signal.SIGSTOP)
                engine.max_silence_seconds = 0.5
                with pytest.raises(EngineStuck) as caught:
                    async for _ in said:
                        pass
            assert caught.value.code == "ENGINE_TIMEOUT"
            assert is_gone(pid)
            engine.max_silence_seconds = PATIENCE_SECONDS
            assert (await picture(engine, paint())).seed == 7

    run(scenario())


@pytest.mark.slow
def test_signals_to_its_group_do_not_end_it(shared: Shared) -> None:
    async def scenario() -> None:
        async with aclosing(shared.engine.stream_replies(paint(steps=5))) as said:
            await first_step(said)
            assert shared.engine.pid is not None
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.killpg(shared.engine.pid, number)
            assert isinstance([reply async for reply in said][-1], FinishedPicture)

    shared.run(scenario())


@pytest.mark.slow
def test_it_is_not_in_the_servers_group(shared: Shared) -> None:
    shared.picture()
    assert shared.engine.pid is not None
    assert os.getpgid(shared.engine.pid) != os.getpgid(0)


SERVER = """
import asyncio, pickle, sys
from contextlib import aclosing
from mflux_api.worker.engine_process import EngineProcess
from mflux_api.ipc.messages import Step

async def main(setup, command):
    engine = EngineProcess(setup, 60)
    await engine.start()
    if command:
        said = engine.stream_replies(command)
        await anext(reply async for reply in said if isinstance(reply, Step))
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main(*pickle.load(sys.stdin.buffer)))
"""


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(None, id="idle", marks=pytest.mark.slow),
        pytest.param(paint(steps=ENDLESS), id="between short steps", marks=pytest.mark.slow),
        pytest.param(paint(steps=3, side=320), id="in a long step"),
    ],
)
def test_it_ends_when_its_server_is_killed(command: PaintCommand | None) -> None:
    arguments = [sys.executable, "-c", SERVER]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=EMBEDDED_MODELS_DIR.parent
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        pickle.dump((make_engine().setup, command), server.stdin)
        server.stdin.close()
        pid = int(server.stdout.readline())
        assert not is_gone(pid)
        server.kill()
        assert wait_until_gone(pid, 2)


# Forced faults


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the engine process by a script."""
    return partial(replace_engine, tmp_path, monkeypatch)


def last_words(text: str, number: signal.Signals) -> str:
    return f"""
    send(READY)
    receive()
    print({text!r}, file=sys.stderr, flush=True)
    os.kill(os.getpid(), {int(number)})
    """


METAL = (
    "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution "
    "failed: Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)"
)
# Printed on every Mac where malloc stack logging was used once to search for leaks.
HARMLESS = "python(42) MallocStackLogging: can't turn off malloc stack logging because it was not enabled."


@pytest.mark.parametrize(
    ("text", "is_memory"),
    [
        (METAL, True),
        ("[metal::malloc] Attempting to allocate 34359738368 bytes which is greater than the maximum allowed", True),
        ("[malloc] Unable to allocate 1099511627776 bytes.", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'", True),
        ("cudaMallocAsync(&data, size, stream) failed: out of memory", True),
        (HARMLESS, False),
        ("malloc(): corrupted top size", False),
        ("Segmentation fault", False),
    ],
)
def test_last_words_tell_whether_the_memory_was_full(text: str, is_memory: bool) -> None:
    assert bool(ALLOCATION.search(text)) is is_memory


def test_an_engine_that_dies_of_memory_says_so(fake: Any) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(OutOfMemory) as caught:
                await engine.run_command(paint())
            assert "suggestion" in caught.value.details

    fake(last_words(METAL, signal.SIGABRT))
    run(scenario())


def test_an_engine_that_dies_of_something_else_does_not_blame_memory(fake: Any) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied) as caught:
                await engine.run_command(paint())
            assert caught.value.details == {"exit_code": -signal.SIGSEGV}

    fake(last_words(HARMLESS, signal.SIGSEGV))
    run(scenario())


@pytest.mark.parametrize("script", ["sys.exit(3)", "line.close(); time.sleep(0.2); sys.exit(3)"])
def test_an_engine_that_cannot_start_is_reported(fake: Any, script: str) -> None:
    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied) as caught:
                await engine.start()
            assert caught.value.details == {"exit_code": 3}
            assert engine.ready is None

    fake(script)
    run(scenario())


def test_a_missing_interpreter_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As when another Python was installed while the server ran."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    async def scenario() -> None:
        async with running() as engine:
            with pytest.raises(EngineDied, match="cannot be started"):
                await engine.start()

    run(scenario())


def test_a_caller_cancelled_amid_a_message_leaves_the_line_in_order(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        half = transport.pack_message(Thumbnail(bytes(1000)))
        line.sendall(transport.pack_message(Thumbnail(b"first")) + half[:500])
        receive()
        line.sendall(half[500:])
        send(CommandDone(True))
        receive()
        send(Thumbnail(b"second"), CommandDone())
        receive()
        """
    )

    async def scenario() -> None:
        begun = asyncio.Event()

        async def watch(engine: EngineProcess) -> None:
            async with aclosing(engine.stream_replies(paint())) as said:
                async for _ in said:
                    begun.set()

        async with running() as engine:
            watcher = asyncio.create_task(watch(engine))
            await begun.wait()
            # Half of the next message may arrive meanwhile. The test passes without it, too.
            await asyncio.sleep(0.05)
            watcher.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watcher
            assert await replies(engine, paint()) == [Thumbnail(b"second")]

    run(scenario())


def test_a_caller_who_does_not_wait_for_the_stop_leaves_no_engine_that_still_paints(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        send(Thumbnail(b"first"))
        time.sleep(600)
        """
    )

    async def scenario() -> None:
        begun = asyncio.Event()

        async def watch(engine: EngineProcess) -> None:
            async with aclosing(engine.stream_replies(paint())) as said:
                async for _ in said:
                    begun.set()

        async with running() as engine:
            watcher = asyncio.create_task(watch(engine))
            await begun.wait()
            pid = engine.pid
            assert pid is not None
            for _ in range(2):
                watcher.cancel()
                # Between both, the engine is asked to stop.
                await asyncio.sleep(0.05)
            with pytest.raises(asyncio.CancelledError):
                await watcher
            assert is_gone(pid)

    run(scenario())


def test_a_flood_on_standard_error_does_not_hold_the_engine_up(fake: Any) -> None:
    fake(
        """
        send(READY)
        receive()
        sys.stderr.write("x" * 1_000_000 + "\\n" + "y" * 1_000_000)
        sys.stderr.flush()
        send(Thumbnail(b"after"), CommandDone())
        receive()
        """
    )

    async def scenario() -> None:
        async with running() as engine:
            assert await replies(engine, paint()) == [Thumbnail(b"after")]

    run(scenario())


# The server's process


def test_the_servers_process_loads_no_mlx() -> None:
    imports = "import sys, mflux_api.app.application, mflux_api.commands.serve"
    code = f"{imports}; print({{'mlx', 'mflux', 'transformers'}} & {{*sys.modules}})"
    arguments = [sys.executable, "-c", code]
    found = subprocess.run(arguments, cwd=EMBEDDED_MODELS_DIR.parent, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
