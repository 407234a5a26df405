"""HTTP client for untrusted URLs (pictures, webhooks), with limits on size and time."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpcore

from mflux_api.errors import AddressForbidden, FetchFailed
from mflux_api.net.ssrf import PublicNetworkBackend, TrustedHosts
from mflux_api.version import __version__

REDIRECTS = 3
REDIRECTING = frozenset({301, 302, 303, 307, 308})
OK = 200
AGENT = f"mflux-api/{__version__}"
SHOWN = 200


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """HTTP client that connects to public addresses only.

    `trusted_hosts`: host names that may resolve to any address. `seconds`: limit for a whole fetch, redirects included.
    """

    def __init__(self, trusted_hosts: Collection[str], seconds: float) -> None:
        self.trusted_hosts = tuple(trusted_hosts)
        self.seconds = seconds

    def check_url(self, url: str) -> None:
        """Check a URL without connecting: its form, and a host that is an address by its text.

        Raises FetchFailed, AddressForbidden.
        """
        TrustedHosts(self.trusted_hosts).require_reachable(_parse_host(url))

    async def get(self, url: str, limit: int) -> bytes:
        """Fetch a URL, at most `limit` bytes. Follows up to REDIRECTS redirects.

        Raises FetchFailed, AddressForbidden.
        """
        try:
            async with asyncio.timeout(self.seconds):
                for _ in range(REDIRECTS + 1):
                    answer = await self.send("GET", url, {}, b"", limit)
                    if answer.status not in REDIRECTING:
                        break
                    url = urljoin(url, answer.headers.get("location", ""))
        except TimeoutError:
            raise FetchFailed(f"{_redact_url(url)} did not answer within {self.seconds:g} seconds.") from None
        if answer.status != OK:
            raise FetchFailed(f"{_redact_url(url)} was answered with status {answer.status}.")
        return answer.body

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes, limit: int) -> HttpResponse:
        """Send one request without following redirects; the response has at most `limit` bytes.

        Raises FetchFailed, AddressForbidden.
        """
        self.check_url(url)
        sent = {"User-Agent": AGENT, "Accept": "*/*", **headers}
        try:
            async with (
                httpcore.AsyncConnectionPool(
                    network_backend=PublicNetworkBackend(self.trusted_hosts), max_connections=1
                ) as pool,
                pool.stream(method, url, headers=_encode_headers(sent), content=body) as reply,
            ):
                return HttpResponse(reply.status, _decode_headers(reply.headers), await _read_body(reply, limit))
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol):
            raise FetchFailed(f"{_redact_url(url)} cannot be reached.") from None


def _parse_host(url: str) -> str:
    """Return the host of a URL of the right form: http or https, ASCII, without credentials.

    Raises FetchFailed, AddressForbidden.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise FetchFailed(f"{_redact_url(url)} is not a valid address.") from None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        raise FetchFailed(f"{_redact_url(url)}: only http and https addresses are fetched.")
    if parts.username is not None or not url.isascii() or any(letter.isspace() for letter in url):
        raise AddressForbidden(
            f"{_redact_url(url)}: addresses must not contain passwords, blanks or non-ASCII letters."
        )
    return host


def _encode_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Encode names and values as UTF-8, because a client's webhook secret may have any letters."""
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _decode_headers(pairs: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


async def _read_body(reply: httpcore.Response, limit: int) -> bytes:
    parts, size = [], 0
    async for part in reply.aiter_stream():
        size += len(part)
        if size > limit:
            raise FetchFailed(f"The reply from this address has more than {limit} bytes.")
        parts.append(part)
    return b"".join(parts)


def _redact_url(url: str) -> str:
    """Shorten a URL for error messages. The query is removed because it may hold a secret."""
    return url.partition("?")[0][:SHOWN]
