"""The job database: one SQLite file, one connection, one thread, one transaction a call."""

import asyncio
import fcntl
import os
import sqlite3
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from mflux_api.errors import InvalidRequest, MfluxError, StorageFailed
from mflux_api.jobs.database.migrations import MIGRATIONS
from mflux_api.logs import log_warning

P = ParamSpec("P")
T = TypeVar("T")
# FULL: what a client was told is on disk survives a power cut (`run_ahead` is for the rest). On macOS a plain fsync
# does not reach the drive.
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "busy_timeout=5000",
    "foreign_keys=ON",
    "wal_autocheckpoint=1000",
    "journal_size_limit=67108864",
    "temp_store=MEMORY",
    *(("fullfsync=ON", "checkpoint_fullfsync=ON") if sys.platform == "darwin" else ()),
)
# How long transactions that nobody waits for share one sync. A Mac's takes some 20 ms, whatever there is to write.
SYNC_SECONDS = 0.1


def connect(path: Path) -> sqlite3.Connection:
    """A connection that migrations can be run on."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    # SQLite's own lower() knows no letters but A to Z.
    connection.create_function("casefold", 1, str.casefold, deterministic=True)
    return connection


class Store:
    """Open it, run transactions, close it. Only one process at a time may have the file open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._sync_due: asyncio.TimerHandle | None = None
        self._opened = ExitStack()

    async def open(self) -> None:
        """Raises InvalidRequest when another server has the database, StorageFailed when it cannot be made."""
        try:
            await self._on_thread(self._open)
        except MfluxError:
            await self.close()
            raise

    async def close(self) -> None:
        if self._sync_due is not None:
            self._sync_due.cancel()
        await self._on_thread(self._opened.close)
        self._thread.shutdown()

    async def run(
        self, action: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `action` with the connection inside a transaction: all of it reaches the disk, or nothing.

        Raises StorageFailed when the disk is full or broken.
        """
        return await self._on_thread(lambda: self._transact(lambda: action(self._db, *args, **kwargs)))

    async def run_ahead(
        self, action: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `run` without waiting for fsync: survives a crash at once, a power loss after SYNC_SECONDS.

        For what no client knows yet, and for what would be done again.
        """
        loop = asyncio.get_running_loop()

        def call() -> T:
            result = self._unsynced(lambda: action(self._db, *args, **kwargs))
            loop.call_soon_threadsafe(self._sync_later)
            return result

        return await self._on_thread(call)

    async def _on_thread(self, call: Callable[[], T]) -> T:
        # Shielded: a caller that goes away must not leave others guessing whether its transaction was made.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, call))

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._claim_folder()
            self._db = self._opened.enter_context(closing(connect(self.path)))
            for pragma in PRAGMAS:
                self._db.execute(f"PRAGMA {pragma}")
            self._migrate()
        except (OSError, sqlite3.DatabaseError) as error:
            raise StorageFailed(f"The job database {self.path} cannot be opened: {error}") from error

    def _claim_folder(self) -> None:
        # Opened for appending: whoever holds the lock has its number in there, and that must stay readable.
        lock = self._opened.enter_context(self.path.with_suffix(".lock").open("a+", encoding="utf-8"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise InvalidRequest(
                f"Another server (process {holder}) already uses {self.path.parent}. Stop it, or give this one "
                "another folder with MFLUX_OUTPUT_DIR.",
                field="generation.output_dir",
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()

    def _migrate(self) -> None:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            raise StorageFailed(f"The job database {self.path} was written by a newer version of this server.")
        for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
            self._db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")

    def _unsynced(self, action: Callable[[], T]) -> T:
        self._db.execute("PRAGMA synchronous=NORMAL")
        try:
            return self._transact(action)
        finally:
            self._db.execute("PRAGMA synchronous=FULL")

    def _sync_later(self) -> None:
        if self._sync_due is None:
            self._sync_due = asyncio.get_running_loop().call_later(SYNC_SECONDS, self._sync_now)

    def _sync_now(self) -> None:
        self._sync_due = None
        asyncio.get_running_loop().run_in_executor(None, self._sync_log)

    def _sync_log(self) -> None:
        """What SQLite itself does at the end of each transaction of `run`."""
        try:
            # Closing a file drops the process's locks on it; SQLite has none on this one.
            with self.path.with_name(f"{self.path.name}-wal").open("rb") as log:
                _sync(log.fileno())
        except FileNotFoundError:
            pass  # The database was closed meanwhile, and has all of it.
        except OSError as error:
            log_warning("storage.unsynced", reason=str(error))

    def _transact(self, action: Callable[[], T]) -> T:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = action()
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise StorageFailed("The job database cannot be written: is the disk full?") from error
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        return result


def _sync(descriptor: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)
