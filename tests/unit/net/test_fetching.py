"""Pictures given by URL are fetched from public addresses only, within limits."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mflux_api.errors import AddressForbidden, FetchFailed
from mflux_api.net.fetching import Fetcher
from mflux_api.net.ssrf import PublicNetworkBackend, is_public

INSIDE = [
    *("127.0.0.1", "127.9.9.9", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
    *("224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
    *("ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::"),
]


@pytest.fixture
def site() -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/to/"):
                self.send_response(302)
                self.send_header("Location", self.path.removeprefix("/to/"))
                self.end_headers()
                return
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            self.wfile.write(b"x" * 1000)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def url(site: ThreadingHTTPServer, path: str = "/") -> str:
    return f"http://127.0.0.1:{site.server_address[1]}{path}"


def fetch(address: str, *trusted: str, limit: int = 10_000, seconds: float = 5) -> bytes:
    return asyncio.run(Fetcher(trusted, seconds).get(address, limit))


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111"])
def test_addresses_outside_are_public(address: str) -> None:
    assert is_public(address)


@given(st.ip_addresses(network="10.0.0.0/8") | st.ip_addresses(network="fc00::/7"))
def test_no_private_address_is_public(address: Any) -> None:
    assert not is_public(str(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "127.1", "0"])
def test_this_machine_is_not_asked_by_any_of_its_names(site: ThreadingHTTPServer, host: str) -> None:
    with pytest.raises((AddressForbidden, FetchFailed)):
        fetch(f"http://{host}:{site.server_address[1]}/")


def test_a_named_host_may_be_inside(site: ThreadingHTTPServer) -> None:
    assert fetch(url(site), "127.0.0.1") == b"x" * 1000


@pytest.mark.parametrize(
    ("named", "host"), [("[::1]", "[::1]"), ("::1", "[::1]"), ("LOCALHOST", "localhost"), ("10.0.0.8", "10.0.0.8")]
)
def test_a_host_is_named_in_every_spelling(named: str, host: str) -> None:
    url = f"http://{host}:9/told"
    Fetcher([named], 5).check_url(url)
    with pytest.raises(AddressForbidden):
        Fetcher([], 5).check_url(url)


def test_a_redirect_is_followed_and_checked_again(site: ThreadingHTTPServer) -> None:
    assert fetch(url(site, "/to//"), "127.0.0.1") == b"x" * 1000
    with pytest.raises(AddressForbidden):
        fetch(url(site, f"/to/http://localhost:{site.server_address[1]}/"), "127.0.0.1")
    with pytest.raises(FetchFailed):
        fetch(url(site, "/to/file:///etc/passwd"), "127.0.0.1")


def test_an_endless_redirect_ends(site: ThreadingHTTPServer) -> None:
    here = "/to/" * 10
    with pytest.raises(FetchFailed, match="status 302"):
        fetch(url(site, here + "/"), "127.0.0.1")


def test_too_much_and_nothing_are_refused(site: ThreadingHTTPServer) -> None:
    with pytest.raises(FetchFailed, match="more than"):
        fetch(url(site), "127.0.0.1", limit=999)
    with pytest.raises(FetchFailed, match="404"):
        fetch(url(site, "/missing"), "127.0.0.1")


@pytest.mark.parametrize("address", ["ftp://example.test/", "//x", "http://", "http://me@x/", "http://x:99999/", "x y"])
def test_what_is_no_plain_address_is_refused(address: str) -> None:
    with pytest.raises((AddressForbidden, FetchFailed)):
        fetch(address)


def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: every answer of the resolver is checked, not only the first."""
    answers = iter([["8.8.8.8"], ["127.0.0.1"], ["8.8.8.8", "10.0.0.1"]])

    async def resolve(*args: object, **options: object) -> list[Any]:
        return [(0, 0, 0, "", (address, 80)) for address in next(answers)]

    async def ask() -> list[object]:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        guard = PublicNetworkBackend([])
        return [await _result_or_error(guard._resolve("rebinding.test", 80)) for _ in range(3)]

    assert asyncio.run(ask()) == ["8.8.8.8", "AddressForbidden", "AddressForbidden"]


async def _result_or_error(answer: Any) -> object:
    try:
        return await answer
    except AddressForbidden as error:
        return type(error).__name__
