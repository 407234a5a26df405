"""What the application needs to know of an API that the server answers, and what such APIs decide alike."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from mflux_api.errors import MfluxError
from mflux_api.jobs.service import JobService
from mflux_api.jobs.webhooks import MakePayload
from mflux_api.web.auth import BasicLogin
from mflux_api.web.context import HttpContext
from mflux_api.web.error_responses import ErrorShape, default_error_shape
from mflux_api.web.openapi import Endpoint

# Statuses that clients of any of these APIs expect; an error with another one is a 500 to them.
KNOWN_STATUSES = frozenset({400, 401, 403, 404, 405, 413, 415, 429, 503})


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """An API that the server answers.

    `name`: as the settings have it, where the dialect can be switched off. `prefixes`: what its paths begin with; there
    errors have the `error_shape`, and at most `requests_per_minute` are taken beside the server's own limit (0: any
    number). The first one is the path that its clients may leave out. `endpoints`: made once, by the application.

    `open_paths`, `open_prefixes`: paths that need no key, which tell of no jobs and no prompts, or carry a permission
    of their own. `basic_login`: its clients log in with HTTP Basic. `exposed_headers`: those of its replies that web
    pages of other origins may read. `webhook_payload`: makes what its webhooks are sent. `is_listed`: /openapi.json
    describes it; what documents of others describe is not described again.
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

    @property
    def root(self) -> str:
        """What its paths have before those that its clients know, without a slash at the end."""
        return self.prefixes[0].rstrip("/")


def known_status(error: MfluxError, statuses: Collection[int]) -> int:
    """The error's status where it is one of these, else 500."""
    return error.status if error.status in statuses else 500
