"""Turn errors into replies, in the format of each dialect. Texts of unexpected exceptions are never sent."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import Scope

from mflux_api.errors import BodyTooSlow, MethodNotAllowed, MfluxError, NoSuchRoute, OutOfMemory
from mflux_api.logs import log_error, log_event

ErrorShape = Callable[[MfluxError, str], Response]
LONGEST_PATH = 200
OUT_OF_MEMORY = "Insufficient memory. Try using a quantized model or low_ram mode"


@dataclass(frozen=True)
class ErrorHandlers:
    """Error handlers. `shapes`: (path prefix, format); `default_shape`: the format of all other paths."""

    shapes: Sequence[tuple[str, ErrorShape]]
    default_shape: ErrorShape

    def build_response(self, error: MfluxError, scope: Scope) -> Response:
        """Log an error and make its reply: the format depends on the path, and the request id is that of the log."""
        path: str = scope["path"]
        shape = next((shape for prefix, shape in self.shapes if path.startswith(prefix)), self.default_shape)
        response = shape(error, get_request_id(scope))
        facts = {"method": scope["method"], "path": path[:LONGEST_PATH]}
        log_event("http.refused", **facts, status=response.status_code, code=error.code)
        retry = error.details.get("retry_after")
        if isinstance(retry, (int, float)):
            response.headers["Retry-After"] = str(int(retry))
        if isinstance(error, BodyTooSlow):
            # The rest of the body may still come, and would be read as the next request.
            response.headers["Connection"] = "close"
        return response

    async def handle_mflux_error(self, request: Request, error: Exception) -> Response:
        """Handle an MfluxError."""
        assert isinstance(error, MfluxError)
        return self.build_response(error, request.scope)

    async def handle_http_exception(self, request: Request, error: Exception) -> Response:
        """Handle Starlette's HTTPException: unknown path or method not allowed."""
        assert isinstance(error, HTTPException)
        response = self.build_response(_from_http_exception(error, request), request.scope)
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = _allowed_methods(request)
        return response

    def build_unexpected(self, error: Exception, scope: Scope) -> Response:
        """Log the traceback of any other exception and make a generic reply."""
        log_error("http.error", error, method=scope["method"], path=scope["path"])
        return self.build_response(MfluxError("Internal error. The server's log describes it."), scope)


def _from_http_exception(error: HTTPException, request: Request) -> MfluxError:
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return MethodNotAllowed(f"{request.method} is not allowed here.", allowed=_allowed_methods(request))
    return NoSuchRoute("There is nothing at this address. /docs lists all endpoints.")


def _allowed_methods(request: Request) -> str:
    """List the allowed methods. Starlette lists those of one route only, but several routes may share a path."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in routes for method in route.methods}))


def default_error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Make a reply in the documented format: error, code, details and request_id (the same as in the log)."""
    # Details that JSON cannot represent are left out, so that sending one error does not cause another.
    message = OUT_OF_MEMORY if isinstance(error, OutOfMemory) else error.message
    details = {name: value for name, value in error.details.items() if _is_json_value(value)}
    content = {"error": message, "code": error.code, "details": details, "request_id": request_id}
    return JSONResponse(content, error.status)


def _is_json_value(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_json_value, value))
    return value is None or isinstance(value, (str, int, float, bool))


def get_request_id(scope: Scope) -> str:
    found: str = scope.get("state", {}).get("request_id", "")
    return found
