"""The description of a served API for the application, and the error statuses that these APIs share."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mflux_api.errors import MfluxError
from mflux_api.jobs.service import JobService
from mflux_api.jobs.webhooks import MakePayload
from mflux_api.web.auth import BasicLogin
from mflux_api.web.context import HttpContext
from mflux_api.web.error_responses import ErrorShape, default_error_shape
from mflux_api.web.openapi import Endpoint

# HTTP statuses that clients of all these APIs expect. Errors with another status are sent as 500.
KNOWN_STATUSES = frozenset({400, 401, 403, 404, 405, 413, 415, 429, 503})


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """An API that the server answers.

    `name`: its name in the settings, if they can disable the dialect. `prefixes`: the beginnings of its paths. Errors
    under them use `error_shape`, and POST requests are limited to `requests_per_minute` in addition to the server's own
    limit (0: no limit). Clients may leave out the first prefix where the settings allow it. `endpoints`: called once,
    by the application.

    `open_paths`, `open_prefixes`: paths that need no key. They show no jobs and no prompts, or have a signature.
    `basic_login`: set if its clients log in with HTTP Basic. `exposed_headers`: response headers that web pages of
    other origins may read. `webhook_payload`: makes the function that builds webhook payloads. `is_listed`: whether
    /openapi.json describes it; APIs that are documented elsewhere are not listed. `has_page`: its documented root is
    the web page.
    """

    name: str
    prefixes: tuple[str, ...]
    endpoints: Callable[[JobService, HttpContext], Sequence[Endpoint]]
    error_shape: ErrorShape = default_error_shape
    open_paths: frozenset[str] = frozenset()
    open_prefixes: tuple[str, ...] = ()
    basic_login: BasicLogin | None = None
    exposed_headers: tuple[str, ...] = ()
    requests_per_minute: int = 0
    webhook_payload: Callable[[JobService, HttpContext], MakePayload] | None = None
    is_listed: bool = False
    has_page: bool = False

    @property
    def root(self) -> str:
        """The path prefix that clients may leave out, without a trailing slash."""
        return self.prefixes[0].rstrip("/")


def known_status(error: MfluxError, statuses: Collection[int]) -> int:
    """Return the error's status if it is one of `statuses`, else 500."""
    return error.status if error.status in statuses else 500
