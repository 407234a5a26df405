"""The connection to the job database: one SQLite file, one connection, one thread, one transaction per call."""

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
# synchronous=FULL: a committed transaction survives a power loss (`run_ahead` gives this up). On macOS a plain fsync
# does not reach the drive, so fullfsync is needed.
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
# Transactions of `run_ahead` within this time share one sync. On a Mac a sync takes about 20 ms, whatever its size.
SYNC_SECONDS = 0.1


def url_host(url: str | None) -> str:
    """Return host and port of a URL, as written in it. Empty if it has none."""
    return (url or "").partition("://")[2].partition("/")[0].partition("?")[0].casefold()


def connect(path: Path) -> sqlite3.Connection:
    """Open a connection with the functions that the migrations and queries use."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    # SQLite's own lower() converts only A to Z.
    connection.create_function("casefold", 1, str.casefold, deterministic=True)
    connection.create_function("url_host", 1, url_host, deterministic=True)
    return connection


class Store:
    """The job database. Only one process at a time may open the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._sync_due: asyncio.TimerHandle | None = None
        self._opened = ExitStack()

    async def open(self) -> None:
        """Open the database, create or migrate it.

        Raises InvalidRequest when another server uses it, StorageFailed when it cannot be opened.
        """
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
        """Call `action` with the connection, inside a transaction that is on disk when this returns.

        Raises StorageFailed when the disk is full or broken; then nothing was changed.
        """
        return await self._on_thread(lambda: self._transact(lambda: action(self._db, *args, **kwargs)))

    async def run_ahead(
        self, action: Callable[Concatenate[sqlite3.Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Like `run` without waiting for fsync: survives a crash at once, a power loss after SYNC_SECONDS.

        For changes that no client knows of yet, and for changes that are made again after a power loss.
        """
        loop = asyncio.get_running_loop()

        def call() -> T:
            result = self._unsynced(lambda: action(self._db, *args, **kwargs))
            loop.call_soon_threadsafe(self._sync_later)
            return result

        return await self._on_thread(call)

    async def _on_thread(self, call: Callable[[], T]) -> T:
        # Shielded: when the caller is cancelled, the result of its transaction must still be known to the others.
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
        # Opened for appending, because the file holds the process id of the lock's holder, which must stay readable.
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
        """Sync the WAL file, as SQLite does at the end of each transaction of `run`."""
        try:
            # Closing a file releases the process's locks on it. SQLite holds none on the WAL file.
            with self.path.with_name(f"{self.path.name}-wal").open("rb") as log:
                _sync(log.fileno())
        except FileNotFoundError:
            pass  # The database was closed in the meantime and contains everything.
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
