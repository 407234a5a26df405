"""Run the server and write every SQL statement of its job database to standard error."""

import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from mflux_api.cli import main
from mflux_api.jobs.database import connection as store

untraced_connect = store.connect


def connect_traced(path: Path) -> sqlite3.Connection:
    connection = untraced_connect(path)
    connection.set_trace_callback(lambda statement: sys.stderr.write(f"sql: {statement}\n"))
    return connection


if __name__ == "__main__":
    store.connect = connect_traced
    sys.exit(main(["serve", *sys.argv[1:]]))
