"""Authentication: API keys in every form that clients send, and short-lived tokens for EventSource.

An EventSource cannot send headers, so its token is part of the URL.
"""

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from mflux_api.errors import Unauthorized
from mflux_api.web.error_responses import ErrorHandlers


@dataclass(frozen=True)
class ApiKeys:
    """API keys by name, passwords of HTTP Basic users by name, and signed tokens.

    `token_seconds`: lifetime of a token. Tokens become invalid when the server restarts.
    """

    keys: Mapping[str, str]
    token_seconds: float
    passwords: Mapping[str, str] = field(default_factory=dict)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    @property
    def is_required(self) -> bool:
        return bool(self.keys or self.passwords)

    def find_owner(self, key: str) -> str | None:
        """Return the name of a key, or None. Compares with every known key, each in constant time."""
        found = None
        for name, known in self.keys.items():
            if _is_same(known, key):
                found = name
        return found

    def check_password(self, name: str, password: str) -> str | None:
        """Return the user's name if the password is right, else None."""
        # Hashed and compared for unknown users too, so that both cases take the same time.
        known = self.passwords.get(name)
        return name if _is_same(known or "", password) and known else None

    def create_token(self, owner: str) -> str:
        """Make a signed token that authenticates `owner` in the query string of a stream."""
        claim = f"{int(time.time() + self.token_seconds)}.{owner}"
        return base64.urlsafe_b64encode(f"{claim}.{self._sign(claim)}".encode()).decode().rstrip("=")

    def verify_token(self, token: str) -> str | None:
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


# Paths of event streams end with one of these. Only there a token in the URL is accepted.
STREAMS = ("/stream", "/events", "/download")
NEEDED = "An API key is needed: send it as X-API-Key or Authorization: Bearer."


@dataclass(frozen=True, kw_only=True)
class BasicLogin:
    """Paths with these `prefixes` accept HTTP Basic, where the password may also be an API key.

    `missing`, `wrong`: the error messages for a request without a login and for a login that is wrong.
    """

    prefixes: tuple[str, ...]
    missing: str
    wrong: str

    def reason(self, scope: Scope) -> str:
        return self.missing if _parse_basic_auth(Headers(scope=scope)) is None else self.wrong


class AuthenticationMiddleware:
    """Middleware that requires a key and stores its name in `scope["state"]["owner"]`.

    `open_paths` and paths that begin with `open_prefixes` need no key. `logins`: prefixes that accept HTTP Basic.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: ApiKeys,
        error_handlers: ErrorHandlers,
        *,
        open_paths: frozenset[str],
        open_prefixes: tuple[str, ...],
        logins: Sequence[BasicLogin],
    ) -> None:
        self.app = app
        self.keys = keys
        self.error_handlers = error_handlers
        self.open_paths = open_paths
        self.open_prefixes = open_prefixes
        self.logins = logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.keys.is_required:
            await self.app(scope, receive, send)
            return
        owner = self._authenticate(scope)
        if owner is None and not self._is_open(scope["path"]):
            await self._refusal(scope)(scope, receive, send)
            return
        scope.setdefault("state", {})["owner"] = owner or ""
        await self.app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self.open_paths or path.startswith(self.open_prefixes)

    def _login(self, scope: Scope) -> BasicLogin | None:
        return next((each for each in self.logins if scope["path"].startswith(each.prefixes)), None)

    def _refusal(self, scope: Scope) -> Response:
        login = self._login(scope)
        response = self.error_handlers.build_response(Unauthorized(login.reason(scope) if login else NEEDED), scope)
        response.headers["WWW-Authenticate"] = 'Basic realm="mflux-api"' if login else "Bearer"
        return response

    def _authenticate(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        for key in _extract_keys(headers, basic=self._login(scope) is not None):
            if owner := self.keys.find_owner(key):
                return owner
        pair = _parse_basic_auth(headers)
        if pair is not None and (user := self.keys.check_password(*pair)):
            return user
        tokens = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token", [])
        if scope["method"] == "GET" and scope["path"].endswith(STREAMS) and tokens:
            return self.keys.verify_token(tokens[0])
        return None


def _extract_keys(headers: Headers, *, basic: bool) -> list[str]:
    """Return all keys of a request: X-API-Key, Bearer, a bare Authorization, and the Basic password if `basic`."""
    found = [headers["x-api-key"]] if "x-api-key" in headers else []
    scheme, _, rest = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        found.append(rest.strip())
    elif scheme.lower() == "basic":
        name, password = _parse_basic_auth(headers) or ("", "")
        found += [password or name] if basic else []
    elif scheme:
        found.append(scheme)
    return found


def _parse_basic_auth(headers: Headers) -> tuple[str, str] | None:
    """Return name and password of HTTP Basic; None if they are missing, malformed or both empty."""
    scheme, _, encoded = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if name or colon else None
