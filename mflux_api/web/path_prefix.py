"""Serve a dialect at the root or on a port of its own, for clients that cannot use its path prefix."""

from collections.abc import Collection, Mapping

from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send


class PathPrefixMiddleware:
    """Middleware that adds a dialect's prefix to request paths.

    `ports`: prefixes by port; requests to such a port get its prefix. `pages`: paths by prefix that are not rewritten
    on such a port, because the dialect serves the web page at its root. `root`: the prefix whose `routes` are also
    served at the root. A route is (method, declared path without the prefix); other paths do not change.
    """

    def __init__(
        self,
        app: ASGIApp,
        ports: Mapping[int, str],
        pages: Mapping[str, Collection[str]],
        root: str,
        routes: Collection[tuple[str, str]],
    ) -> None:
        self.app = app
        self.ports = ports
        self.pages = pages
        self.root = root
        self.routes = [(method, compile_path(path)[0]) for method, path in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._rewrite_path(scope)
        await self.app(scope, receive, send)

    def _rewrite_path(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        _, port = scope.get("server") or ("", 0)
        prefix = self.ports.get(port or 0, "")
        # Paths of URLs in replies are the same on every port and stay as they are.
        is_page = path in self.pages.get(prefix, ())
        if prefix and not is_page and not path.startswith((f"{prefix}/", "/files/", "/api/v1/")):
            return {**scope, "path": prefix + path}
        if any(method == scope["method"] and pattern.match(path) for method, pattern in self.routes):
            return {**scope, "path": self.root + path}
        return scope
