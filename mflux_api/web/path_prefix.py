"""A dialect at the root: its clients know addresses without its prefix, and sometimes a port of their own."""

from collections.abc import Collection, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send


class Mounted:
    """Puts a dialect's prefix before the paths that mean it.

    `ports`: all paths that arrive at a port mean the dialect of that prefix. `root`: the prefix whose own `routes`,
    (method, path without the prefix), are answered at the root as well; nothing else changes there.
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
        # Addresses that replies name are the same on every port.
        if prefix and not path.startswith((f"{prefix}/", "/files/", "/api/v1/")):
            return {**scope, "path": prefix + path}
        if self.root and (scope["method"], _pattern(path)) in self.routes:
            return {**scope, "path": self.root + path}
        return scope


def _pattern(path: str) -> str:
    """A path as the table of routes has it: what follows /images/ is a name."""
    return "/images/{name}" if path.startswith("/images/") else path
