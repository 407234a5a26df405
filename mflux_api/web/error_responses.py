"""Errors to replies: each part of the address space in its own shape, and never a word of a foreign exception."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from mflux_api.errors import MethodNotAllowed, MfluxError, NoSuchRoute, OutOfMemory
from mflux_api.logs import REQUEST_ID, event, failure

Shape = Callable[[MfluxError, str], Response]
LONGEST_PATH = 200
OUT_OF_MEMORY = "Insufficient memory. Try using a quantized model or low_ram mode"


@dataclass(frozen=True)
class Faults:
    """`shapes`: (path prefix, shape), the first that matches counts; `usual` is for the rest."""

    shapes: Sequence[tuple[str, Shape]]
    usual: Shape

    def reply(self, error: MfluxError, scope: Scope) -> Response:
        """The error in the shape of the address it happened at, with its request's id, under which the log has it."""
        path: str = scope["path"]
        shape = next((shape for prefix, shape in self.shapes if path.startswith(prefix)), self.usual)
        response = shape(error, request_id(scope))
        facts = {"method": scope["method"], "path": path[:LONGEST_PATH]}
        event("http.refused", **facts, status=response.status_code, code=error.code)
        retry = error.details.get("retry_after")
        if isinstance(retry, (int, float)):
            response.headers["Retry-After"] = str(int(retry))
        return response

    async def ours(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, MfluxError)
        return self.reply(error, request.scope)

    async def http(self, request: Request, error: Exception) -> Response:
        """Starlette's own refusals: no such path, another method."""
        assert isinstance(error, HTTPException)
        response = self.reply(_translated(error, request), request.scope)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = _allowed(request)
        return response

    async def unforeseen(self, request: Request, error: Exception) -> Response:
        # This is called from outside every middleware: the log and the reply have lost the id by now.
        name = request_id(request.scope)
        REQUEST_ID.set(name)
        failure("http.error", error, method=request.method, path=request.url.path)
        response = self.reply(MfluxError("Internal error. The server's log describes it."), request.scope)
        response.headers.update({"X-Request-ID": name, "X-Content-Type-Options": "nosniff"})
        return response


def _translated(error: HTTPException, request: Request) -> MfluxError:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{request.method} is not allowed here.", allowed=_allowed(request))
    return NoSuchRoute("There is nothing at this address. /docs lists what there is.")


def _allowed(request: Request) -> str:
    """Starlette names the methods of one route; several may share a path."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in route.methods}))


def plain_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """The documented shape: error, code, details; and the id that the log knows the request by."""
    # Details are facts for programs; one that JSON cannot carry must not turn an error into another.
    message = OUT_OF_MEMORY if isinstance(error, OutOfMemory) else error.message
    details = {name: value for name, value in error.details.items() if _is_plain(value)}
    content = {"error": message, "code": error.code, "details": details, "request_id": request_id}
    return JSONResponse(content, error.status)


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, int, float, bool))


def request_id(scope: Scope) -> str:
    found: str = scope.get("state", {}).get("request_id", "")
    return found
