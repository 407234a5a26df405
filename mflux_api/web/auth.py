"""Authentication: API keys in every form that clients send, and short-lived tokens for EventSource.

An EventSource cannot send headers, so its token is part of the URL.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mflux_api.errors import Unauthorized
from mflux_api.web.error_responses import Faults


@dataclass(frozen=True)
class Keys:
    """API keys by name, users of HTTP Basic (`passwords`), and the signer of tokens.

    `token_seconds`: lifetime of a token. Tokens become invalid when the server restarts.
    """

    keys: Mapping[str, str]
    token_seconds: float
    passwords: Mapping[str, str] = field(default_factory=dict)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def are_needed(self) -> bool:
        return bool(self.keys or self.passwords)

    def owner(self, key: str) -> str | None:
        """Return the name of a key, or None. Compares with every known key, each in constant time."""
        found = None
        for name, known in self.keys.items():
            if _is_same(known, key):
                found = name
        return found

    def user(self, name: str, password: str) -> str | None:
        """Return the user's name if the password is right, else None."""
        # Hashed and compared for unknown users too, so that both cases take the same time.
        known = self.passwords.get(name)
        return name if _is_same(known or "", password) and known else None

    def token(self, owner: str) -> str:
        """Make a signed token that authenticates `owner` in the query string of a stream."""
        claim = f"{int(time.time() + self.token_seconds)}.{owner}"
        return base64.urlsafe_b64encode(f"{claim}.{self._sign(claim)}".encode()).decode().rstrip("=")

    def token_owner(self, token: str) -> str | None:
        """Return the owner of a valid token, or None."""
        try:
            text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        except (binascii.Error, ValueError):
            return None
        claim, _, signature = text.rpartition(".")
        expires, _, owner = claim.partition(".")
        if not hmac.compare_digest(self._sign(claim).encode(), signature.encode()):
            return None
        return owner if int(expires) >= time.time() else None

    def _sign(self, claim: str) -> str:
        return hmac.new(self.secret, claim.encode(), hashlib.sha256).hexdigest()


def _is_same(known: str, given: str) -> bool:
    return hmac.compare_digest(hashlib.sha256(known.encode()).digest(), hashlib.sha256(given.encode()).digest())


# Prefix of signed URLs, which need no key.
SIGNED = "/files/"
# Suffixes of the paths that accept a token in the query string.
STREAMS = ("/stream", "/events", "/download")


class Authentication:
    """Middleware that requires a key and stores its name in `scope["state"]["owner"]`.

    Lets everything through when no keys are configured. `open_paths` need no key.
    """

    def __init__(self, app: ASGIApp, keys: Keys, faults: Faults, open_paths: frozenset[str]) -> None:
        self.app = app
        self.keys = keys
        self.faults = faults
        self.open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.keys.are_needed:
            await self.app(scope, receive, send)
            return
        owner = self._owner(scope)
        if owner is None and scope["path"] not in self.open_paths and not scope["path"].startswith(SIGNED):
            response = self.faults.reply(Unauthorized(_reason(scope)), scope)
            response.headers["WWW-Authenticate"] = 'Basic realm="mflux-api"' if _is_sdapi(scope) else "Bearer"
            await response(scope, receive, send)
            return
        scope.setdefault("state", {})["owner"] = owner or ""
        await self.app(scope, receive, send)

    def _owner(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        for key in _keys(headers, sdapi=_is_sdapi(scope)):
            if owner := self.keys.owner(key):
                return owner
        pair = _basic(headers)
        if pair is not None and (user := self.keys.user(*pair)):
            return user
        tokens = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if scope["method"] == "GET" and scope["path"].endswith(STREAMS) and tokens:
            return self.keys.token_owner(tokens[0])
        return None


def _is_sdapi(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith(("/sdapi/", "/internal/"))


def _reason(scope: Scope) -> str:
    """Return the error message. Under /sdapi it is SD-WebUI's own, word for word."""
    if not _is_sdapi(scope):
        return "An API key is needed: send it as X-API-Key or Authorization: Bearer."
    return "Not authenticated" if _basic(Headers(scope=scope)) is None else "Incorrect username or password"


def _keys(headers: Headers, *, sdapi: bool) -> list[str]:
    """Return the candidate keys of a request.

    They come from X-API-Key, from Authorization (Bearer or the bare key), and for /sdapi from Basic: the password or,
    without one, the user name.
    """
    found = [headers["x-api-key"]] if "x-api-key" in headers else []
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        found.append(rest.strip())
    elif scheme.lower() == "basic":
        name, password = _basic(headers) or ("", "")
        found += [password or name] if sdapi else []
    elif scheme:
        found.append(scheme)
    return found


def _basic(headers: Headers) -> tuple[str, str] | None:
    """Return name and password of HTTP Basic; None if they are missing, malformed or both empty."""
    scheme, _, encoded = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if name or colon else None
