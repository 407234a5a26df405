"""Static files for browsers: the page and the API documentation. They load nothing from other hosts."""

import hashlib
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

STATIC = Path(__file__).parent / "static"
FOLDERS = ("studio", "docs", "vendor")
PAGES = {"/": "studio/index.html", "/docs": "docs/docs.html"}
# Only scripts of this package run. Trusted types block every assignment that would turn text into HTML.
POLICY = "; ".join(
    (
        *("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "manifest-src 'self'"),
        *("img-src 'self' blob: data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
        *("require-trusted-types-for 'script'", "trusted-types 'none'"),
    )
)
SECURE = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
TYPES = {".js": "text/javascript", ".webmanifest": "application/manifest+json"}


def _list_paths() -> dict[str, Path]:
    """Map each URL path to its file."""
    found = sorted(file for folder in FOLDERS for file in (STATIC / folder).iterdir() if file.suffix != ".html")
    served = {f"/{file.parent.name}/{file.name}": file for file in found}
    return served | {address: STATIC / name for address, name in PAGES.items()}


PATHS = _list_paths()


def build_routes() -> list[BaseRoute]:
    """Return the routes. Files are read once; browsers revalidate them by ETag on each load."""
    return [Route(address, _file_handler(path)) for address, path in PATHS.items()]


def _file_handler(path: Path) -> Callable[[Request], Awaitable[Response]]:
    content = path.read_bytes()
    media_type = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {**SECURE, "ETag": tag, "Cache-Control": "no-cache"}

    async def handle(request: Request) -> Response:
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return handle
