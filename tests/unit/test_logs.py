import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.logs import REQUEST_ID, configure_logging, log_error, log_event, log_warning

Lines = Callable[[], list[str]]
NAMES = ("mflux_api", "uvicorn", "uvicorn.error", "uvicorn.access", "asyncio")
NASTY = st.text(st.characters() | st.sampled_from('\n\r\t\x1b\x7f\x85\u2028\u202e" ='))


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in NAMES]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    def read() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return read


def fail() -> None:
    raise ValueError("no\nluck \x1b[31m")


def test_an_event_is_a_line_with_time_level_name_and_fields(lines: Lines) -> None:
    configure_logging("info", "text")
    log_event("job.done", id="a1", model="flux2-tiny", seconds=2.5)
    (line,) = lines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d info  job\.done id=a1 model=flux2-tiny seconds=2\.5", line)


def test_what_is_no_plain_word_is_quoted(lines: Lines) -> None:
    configure_logging("info", "text")
    log_event("x", a="two words", b="", c=None, d='say "hi"', e=1 / 3, f=Path("/a/b"), g="x=y", h="grün")
    assert lines()[0].endswith(' a="two words" b="" c=- d="say \\"hi\\"" e=0.333 f=/a/b g="x=y" h="grün"')


def test_a_warning_says_so(lines: Lines) -> None:
    configure_logging("info", "text")
    log_warning("engine.stderr", text="hot")
    assert re.fullmatch(r"\S+ warn  engine\.stderr text=hot", lines()[0])


def test_a_failure_brings_its_traceback_below_the_line(lines: Lines) -> None:
    configure_logging("info", "text")
    try:
        fail()
    except ValueError as error:
        log_error("dispatcher.error", error, job="a1")
    first, *rest = lines()
    assert re.fullmatch(r'\S+ error dispatcher\.error job=a1 error="ValueError: no\\nluck \\u001b\[31m"', first)
    assert rest[0] == "    Traceback (most recent call last):"
    assert any('raise ValueError("no' in line for line in rest)
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_a_traceback_from_another_process_is_shown_like_our_own(lines: Lines) -> None:
    configure_logging("info", "text")
    log_warning("engine.crashed", trace="Traceback:\n  File x\nValueError", code=3)
    assert [line.strip() for line in lines()[1:]] == ["Traceback:", "File x", "ValueError"]


def test_json_has_an_object_a_line(lines: Lines) -> None:
    configure_logging("info", "json")
    log_event("job.done", id="a1", seconds=2.5, folder=Path("/a"), sizes=[1, 2], none=None)
    found = json.loads(lines()[0])
    assert abs(datetime.fromisoformat(found.pop("time")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert found == {
        "level": "info", "event": "job.done", "id": "a1", "seconds": 2.5, "folder": "/a", "sizes": [1, 2], "none": None,
    }  # fmt: skip


def test_json_keeps_a_traceback_on_the_line(lines: Lines) -> None:
    configure_logging("info", "json")
    try:
        fail()
    except ValueError as error:
        log_error("dispatcher.error", error)
    (line,) = lines()
    found = json.loads(line)
    assert (found["level"], found["error"]) == ("error", "ValueError: no\nluck \x1b[31m")
    assert found["trace"].startswith("Traceback")


def test_json_stays_json_with_values_it_has_no_word_for(lines: Lines) -> None:
    configure_logging("info", "json")
    log_event("x", a=float("nan"), b={(1, 2): 3}, c=[float("inf")], d=1)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(lines()[0], parse_constant=refuse)
    assert (found["a"], found["b"], found["c"], found["d"]) == ("nan", "{(1, 2): 3}", "[inf]", 1)


def test_a_field_replaces_neither_time_nor_event(lines: Lines) -> None:
    configure_logging("info", "json")
    log_event("x", time="never", event="y", name="z", level=7)
    found = json.loads(lines()[0])
    assert (found["event"], found["level"], found["name"]) == ("x", "info", "z")
    assert (found["time_"], found["event_"], found["level_"]) == ("never", "y", 7)


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_request_is_in_every_line_while_it_lasts(lines: Lines, style: str) -> None:
    configure_logging("info", style)
    token = REQUEST_ID.set("r-42")
    log_event("inside")
    logging.getLogger("uvicorn.error").warning("inside too")
    REQUEST_ID.reset(token)
    log_event("outside")
    assert ["r-42" in line for line in lines()] == [True, True, False]


@given(NASTY, NASTY)
def test_no_value_breaks_a_text_line(value: str, message: str) -> None:
    assert format_line("text", value, message).isprintable()


@given(NASTY, NASTY)
def test_no_value_breaks_a_json_line(value: str, message: str) -> None:
    line = format_line("json", value, message)
    assert line.isascii()
    assert not any(ord(char) < 32 for char in line)
    assert json.loads(line)["value"] == value


def format_line(style: str, value: str, message: str) -> str:
    """Return the log line of an event and of another library's message, without the final newline."""
    configure_logging("info", style)
    stream = io.StringIO()
    handler = logging.getLogger("mflux_api").handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(stream)
    logging.getLogger("uvicorn.error").info("%s", message)
    other = stream.getvalue()
    assert other.endswith("\n")
    assert len(other.splitlines()) == 1
    log_event("x", value=value)
    return stream.getvalue()[len(other) :].removesuffix("\n")


def test_uvicorn_speaks_through_the_same_handler(lines: Lines) -> None:
    configure_logging("info", "json")
    logging.getLogger("uvicorn.error").info("Uvicorn running on %s", "http://x")
    found = json.loads(lines()[0])
    assert (found["event"], found["message"]) == ("uvicorn.error", "Uvicorn running on http://x")


def test_uvicorns_access_log_is_off(lines: Lines) -> None:
    configure_logging("debug", "text")
    logging.getLogger("uvicorn.access").info("GET / 200")
    assert lines() == []
    assert not logging.getLogger("uvicorn.access").hasHandlers()


def test_what_is_below_the_level_is_left_out(lines: Lines) -> None:
    configure_logging("warning", "text")
    log_event("quiet")
    log_warning("loud")
    logging.getLogger("asyncio").info("quiet")
    assert [line.split()[2] for line in lines()] == ["loud"]


def test_asyncios_inner_works_stay_out_at_debug(lines: Lines) -> None:
    configure_logging("debug", "text")
    logging.getLogger("asyncio").debug("Using selector: EpollSelector")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert len(lines()) == 1


def test_configuring_again_writes_no_line_twice(lines: Lines) -> None:
    configure_logging("info", "text")
    configure_logging("info", "json")
    log_event("once")
    logging.getLogger("mflux_api.jobs").info("as well")
    assert [json.loads(line)["event"] for line in lines()] == ["once", "mflux_api.jobs"]
