"""What was painted when, hour by hour: sums that outlive the jobs they count. Statements for `Store.run`."""

import sqlite3
from dataclasses import dataclass

HOUR = 3600
BUCKETS = {"hour": 1, "day": 24}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One bucket of time from `start`, seconds since 1970. `seconds`: what its completed jobs took together."""

    start: float
    pictures: int = 0
    failures: int = 0
    seconds: float = 0.0

    @property
    def pace(self) -> float | None:
        """Seconds a picture."""
        return self.seconds / self.pictures if self.pictures else None


def add(
    db: sqlite3.Connection, now: float, *, pictures: int = 0, failures: int = 0, seconds: float | None = None
) -> None:
    """Count what ended now."""
    db.execute(
        """INSERT INTO history VALUES (?, ?, ?, ?) ON CONFLICT (hour) DO UPDATE SET
        pictures = pictures + excluded.pictures, failures = failures + excluded.failures,
        seconds = seconds + excluded.seconds""",
        (int(now // HOUR), pictures, failures, seconds or 0.0),
    )


def points(db: sqlite3.Connection, bucket: str, count: int, now: float) -> list[Point]:
    """The last buckets, oldest first; the one that is not over yet is the last. Days are UTC's."""
    hours = BUCKETS[bucket]
    first = int(now // (HOUR * hours)) - count + 1
    rows = db.execute(
        """SELECT hour / ?, sum(pictures), sum(failures), sum(seconds) FROM history
        WHERE hour >= ? GROUP BY 1""",
        (hours, first * hours),
    )
    found = {row[0]: row for row in rows}
    numbers = range(first, first + count)
    return [_point(number * hours * HOUR, found.get(number)) for number in numbers]


def _point(start: float, row: sqlite3.Row | None) -> Point:
    if row is None:
        return Point(start=start)
    return Point(start=start, pictures=row[1], failures=row[2], seconds=row[3])
