"""The log: events with fields, one line each, as text for people or as JSON for programs."""

import json
import logging
import math
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

# Of the HTTP request that is being answered; in every line written meanwhile.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

LOG = logging.getLogger("mflux_api")
LEVELS = {"warning": "warn", "critical": "error"}
BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:;/@%#()~*")


def configure(level: str, style: str) -> None:
    """Log to standard error from `level` on ("debug" to "error"), as "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    lowest = logging.getLevelNamesMapping()[level.upper()]
    # asyncio's debug lines are about its own works; its warnings are about ours.
    levels = {"mflux_api": lowest, "uvicorn": lowest, "asyncio": max(lowest, logging.WARNING)}
    for name, least in levels.items():
        _route(logging.getLogger(name), [handler], least)
    # The rest of uvicorn's go through that one, but for requests, which nobody hears.
    logging.getLogger("uvicorn.error").handlers = []
    _route(logging.getLogger("uvicorn.access"), [], lowest)


def _route(logger: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    logger.handlers = handlers
    logger.propagate = False
    logger.setLevel(level)


def event(name: str, /, **fields: object) -> None:
    """Something happened. A field named `trace` may have many lines."""
    LOG.info(name, extra={"fields": fields})


def warning(name: str, /, **fields: object) -> None:
    LOG.warning(name, extra={"fields": fields})


def failure(name: str, error: BaseException, /, **fields: object) -> None:
    """An error that nobody expected, with where it came from."""
    LOG.error(name, extra={"fields": fields}, exc_info=error)


class _Formatter(logging.Formatter):
    """Takes a record apart."""

    def head(self, record: logging.LogRecord) -> str:
        """The event's name, or what another library says."""
        return record.msg if self._is_ours(record) else record.getMessage()

    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields: dict[str, object] = {"request_id": REQUEST_ID.get()} if REQUEST_ID.get() else {}
        given: dict[str, object] = getattr(record, "fields", {})
        return fields | given | self._error(record)

    def _error(self, record: logging.LogRecord) -> dict[str, object]:
        if not record.exc_info or record.exc_info[0] is None:
            return {}
        kind, error, _ = record.exc_info
        return {"error": f"{kind.__name__}: {error}", "trace": self.formatException(record.exc_info)}

    def _is_ours(self, record: logging.LogRecord) -> bool:
        return hasattr(record, "fields")


class _Text(_Formatter):
    """12:31:05 info  job id=42 model=flux2-tiny, then what has many lines, indented."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname.lower()
        fields = self.fields(record)
        trace = str(fields.pop("trace", ""))
        words = [f"{name}={_word(value)}" for name, value in fields.items()]
        line = " ".join([time, f"{LEVELS.get(level, level):5}", _printable(self.head(record)), *words])
        return "\n    ".join([line, *map(_printable, trace.splitlines())])


class _Json(_Formatter):
    """One object a line: time, level, event, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": self.head(record) if self._is_ours(record) else record.name,
        }
        if not self._is_ours(record):
            line["message"] = self.head(record)
        for name, value in self.fields(record).items():
            line[f"{name}_" if name in line else name] = value
        return _json(line)


def _json(line: dict[str, object]) -> str:
    try:
        return json.dumps(line, default=str, allow_nan=False)
    except (TypeError, ValueError):
        # A number that JSON has not, a key that is no text: better as text than not at all.
        return json.dumps({name: value if _is_plain(value) else str(value) for name, value in line.items()})


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _word(value: object) -> str:
    """A value that ends where it seems to: in quotes unless it is one plain word."""
    if value is None:
        return "-"
    text = str(round(value, 3)) if isinstance(value, float) else str(value)
    if text and BARE.issuperset(text):
        return text
    return _printable(json.dumps(text, ensure_ascii=False))


def _printable(text: str) -> str:
    """Nothing in it moves the cursor, ends the line or turns the direction of writing."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
