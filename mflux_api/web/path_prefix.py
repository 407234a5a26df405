"""Serve a dialect at the root or on a port of its own, for clients that cannot use its path prefix."""

from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Mounted:
    """Middleware that adds a dialect's prefix to request paths.

    `ports`: port -> prefix that is added to all paths arriving at that port. `root`: prefix of the dialect whose
    `routes` (method, path without the prefix) are served at the root as well. Other paths stay as they are.
    """

    def __init__(self, app: ASGIApp, ports: Mapping[int, str], root: str, routes: Collection[tuple[str, str]]) -> None:
        self.app = app
        self.ports = ports
        self.root = root
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = self._meant(scope)
        await self.app(scope, receive, send)

    def _meant(self, scope: Scope) -> Scope:
        path: str = scope["path"]
        _, port = scope.get("server") or ("", 0)
        prefix = self.ports.get(port or 0, "")
        # URLs in replies are the same on every port.
        if prefix and not path.startswith((f"{prefix}/", "/files/", "/api/v1/")):
            return {**scope, "path": prefix + path}
        if self.root and (scope["method"], _pattern(path)) in self.routes:
            return {**scope, "path": self.root + path}
        return scope


def _pattern(path: str) -> str:
    """Turn a path into its route pattern: the part after /images/ is a parameter."""
    return "/images/{name}" if path.startswith("/images/") else path
