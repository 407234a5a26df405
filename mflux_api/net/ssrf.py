"""SSRF protection: connections to client-supplied hosts never reach this machine, its network or its cloud.

The check applies to the IP address that is connected to, also after redirects. This defeats DNS rebinding, where a name
resolves to a private address only the second time.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import httpcore

from mflux_api.errors import AddressForbidden

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
LOOPBACK = ipaddress.IPv4Address("127.0.0.1")
# Prefix of IPv4 addresses embedded in IPv6 for NAT64 translators (RFC 6052).
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_public(text: str) -> bool:
    """Tell whether an IP address is on the public internet.

    False for loopback, private, link-local (cloud metadata), multicast and reserved addresses.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return all(each.is_global and not each.is_multicast and not each.is_reserved for each in _expand(address))


def _expand(address: IPAddress) -> Iterable[IPAddress]:
    """Yield the address and the IPv4 addresses embedded in it (mapped, 6to4, Teredo, NAT64)."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        wrapped = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            wrapped.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        yield from (each for each in wrapped if each is not None)


def find_literal_address(host: str) -> IPAddress | None:
    """Return the address that a host is by its text alone, None for a name that must be looked up.

    "127.1", "0x7f000001" and "2130706433" are addresses too, and "localhost" has only one meaning.
    """
    name = host.lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return LOOPBACK
    with suppress(ValueError):
        return ipaddress.ip_address(name.partition("%")[0])
    with suppress(OSError):
        return ipaddress.IPv4Address(socket.inet_aton(name))
    return None


class TrustedHosts:
    """Names and addresses that clients may use although they are not on the public internet."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(name.lower().strip("[]") for name in names)

    def __contains__(self, host: str) -> bool:
        return host.lower() in self.names

    def require_reachable(self, host: str) -> None:
        """Raise AddressForbidden for a host that can never be connected to, without looking up its name."""
        literal = find_literal_address(host)
        if host not in self and literal is not None and not is_public(str(literal)):
            raise _forbidden(host)


def _forbidden(host: str) -> AddressForbidden:
    return AddressForbidden(f"{host} is not on the public internet. security.fetch_hosts lists exceptions.")


class PublicNetworkBackend(httpcore.AsyncNetworkBackend):
    """Network backend that connects to public addresses only; `trusted_hosts` host names may resolve to any address."""

    def __init__(self, trusted_hosts: Iterable[str]) -> None:
        self.trusted_hosts = TrustedHosts(trusted_hosts)
        self.inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect after checking the resolved address. Raises AddressForbidden and httpcore's errors."""
        address = await self._resolve(host, port)
        return await self.inner.connect_tcp(address, port, timeout, local_address, socket_options)

    async def _resolve(self, host: str, port: int) -> str:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = [str(entry[4][0]) for entry in found]
        public = addresses if host in self.trusted_hosts else [each for each in addresses if is_public(each)]
        # A single private address among public ones is refused too: it may be an attack.
        if not public or len(public) < len(addresses):
            raise _forbidden(host)
        return public[0]

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        raise AddressForbidden("Unix sockets are not allowed.")

    async def sleep(self, seconds: float) -> None:
        await self.inner.sleep(seconds)
