"""Structured logging: events with fields, one line each, as text or JSON."""

import json
import logging
import math
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

# Id of the current HTTP request; added to every line logged while it is handled.
REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")

LOG = logging.getLogger("mflux_api")
LEVELS = {"warning": "warn", "critical": "error"}
BARE_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+.,:;/@%#()~*")


def configure_logging(level: str, style: str) -> None:
    """Log to standard error from `level` on ("debug" to "error"), as "text" or "json"."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if style == "json" else _TextFormatter())
    lowest = logging.getLevelNamesMapping()[level.upper()]
    # asyncio's debug lines are of no interest; its warnings point to problems in our code.
    levels = {"mflux_api": lowest, "uvicorn": lowest, "asyncio": max(lowest, logging.WARNING)}
    for name, least in levels.items():
        _set_handlers(logging.getLogger(name), [handler], least)
    # uvicorn's other loggers propagate to "uvicorn". Its access log is off.
    logging.getLogger("uvicorn.error").handlers = []
    _set_handlers(logging.getLogger("uvicorn.access"), [], lowest)


def _set_handlers(logger: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    logger.handlers = handlers
    logger.propagate = False
    logger.setLevel(level)


def log_event(name: str, /, **fields: object) -> None:
    """Log an event at level info. A field named `trace` may have several lines."""
    LOG.info(name, extra={"fields": fields})


def log_warning(name: str, /, **fields: object) -> None:
    LOG.warning(name, extra={"fields": fields})


def log_error(name: str, error: BaseException, /, **fields: object) -> None:
    """Log an unexpected error with its traceback."""
    LOG.error(name, extra={"fields": fields}, exc_info=error)


class _Formatter(logging.Formatter):
    """Base of the formatters: extracts event name and fields from a record."""

    def get_message(self, record: logging.LogRecord) -> str:
        """Return the event's name, or the message of another library's record."""
        return record.msg if self._is_ours(record) else record.getMessage()

    def get_fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields: dict[str, object] = {"request_id": REQUEST_ID.get()} if REQUEST_ID.get() else {}
        given: dict[str, object] = getattr(record, "fields", {})
        return fields | given | self._get_error(record)

    def _get_error(self, record: logging.LogRecord) -> dict[str, object]:
        if not record.exc_info or record.exc_info[0] is None:
            return {}
        kind, error, _ = record.exc_info
        return {"error": f"{kind.__name__}: {error}", "trace": self.formatException(record.exc_info)}

    def _is_ours(self, record: logging.LogRecord) -> bool:
        return hasattr(record, "fields")


class _TextFormatter(_Formatter):
    """Text format: `12:31:05 info  job id=42 model=flux2-tiny`, then the lines of `trace`, indented."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname.lower()
        fields = self.get_fields(record)
        trace = str(fields.pop("trace", ""))
        words = [f"{name}={_format_value(value)}" for name, value in fields.items()]
        line = " ".join([time, f"{LEVELS.get(level, level):5}", _escape_unprintable(self.get_message(record)), *words])
        return "\n    ".join([line, *map(_escape_unprintable, trace.splitlines())])


class _JsonFormatter(_Formatter):
    """JSON format: one object per line with time, level, event and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": self.get_message(record) if self._is_ours(record) else record.name,
        }
        if not self._is_ours(record):
            line["message"] = self.get_message(record)
        for name, value in self.get_fields(record).items():
            line[f"{name}_" if name in line else name] = value
        return _dump_json(line)


def _dump_json(line: dict[str, object]) -> str:
    try:
        return json.dumps(line, default=str, allow_nan=False)
    except (TypeError, ValueError):
        # A value that JSON cannot represent (NaN, a key that is not text) is logged as text.
        return json.dumps({name: value if _is_plain(value) else str(value) for name, value in line.items()})


def _is_plain(value: object) -> bool:
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _format_value(value: object) -> str:
    """Format a value, in quotes unless it is a plain word, so that its end is unambiguous."""
    if value is None:
        return "-"
    text = str(round(value, 3)) if isinstance(value, float) else str(value)
    if text and BARE_CHARACTERS.issuperset(text):
        return text
    return _escape_unprintable(json.dumps(text, ensure_ascii=False))


def _escape_unprintable(text: str) -> str:
    """Escape characters that move the cursor, break the line or change the writing direction."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
