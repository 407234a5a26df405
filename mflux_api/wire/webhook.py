"""The webhook that a client names with its order."""

from collections.abc import Iterable

from mflux_api.errors import InvalidRequest
from mflux_api.web.context import HttpContext


def build_webhook_note(
    context: HttpContext, url: str | None, *, field: str, secret: str = "", events: Iterable[str] = ()
) -> dict[str, str]:
    """Return the part of a job's note that its webhooks need: none without a URL.

    Raises FetchFailed, or AddressForbidden for a URL that could never be delivered to.
    """
    if not url:
        return {}
    try:
        context.fetcher.check_url(url)
    except InvalidRequest as error:
        raise type(error)(f"{field}: {error.message}", field=field) from None
    chosen = {"secret": secret, "events": ",".join(events)}
    return {"webhook": url, **{name: value for name, value in chosen.items() if value}}
