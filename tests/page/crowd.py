"""Fill a gallery with copies of one finished job: painting thousands would take hours."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

OWN = {"number", "id", "created", "place", "key"}


def copy_first_job(output: Path, count: int) -> None:
    """Add `count` copies of the first job, each with its own seed and its own second. No server may run meanwhile."""
    with closing(sqlite3.connect(output / "jobs.db", isolation_level=None)) as db:
        db.create_function("casefold", 1, str.casefold, deterministic=True)
        columns = [row[1] for row in db.execute("PRAGMA table_xinfo(jobs)") if not row[6] and row[1] not in OWN]
        (pictures,) = db.execute("SELECT pictures FROM jobs ORDER BY number LIMIT 1").fetchone()
        copied = ", ".join(columns)
        values = ", ".join("?" if name == "pictures" else name for name in columns)
        db.execute("BEGIN")
        for number in range(count):
            seeded = json.dumps([{**picture, "seed": number} for picture in json.loads(pictures)])
            db.execute(
                f"INSERT INTO jobs (id, created, place, {copied}) "
                f"SELECT ?, created + ?, number + ?, {values} FROM jobs ORDER BY number LIMIT 1",
                (f"{number:012x}", number, number, seeded),
            )
        db.execute("COMMIT")
