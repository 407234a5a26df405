"""/sdapi/v1: error replies in the form and with the messages of SD-WebUI."""

import json
from typing import Any

from starlette.responses import JSONResponse

from mflux_api.dialects.sdapi.body import WrongKind
from mflux_api.errors import MethodNotAllowed, MfluxError, NoSuchRoute, Unauthorized
from mflux_api.web.error_responses import default_error_shape

TAG = "sdapi"
JSON = "application/json"
WORDS = {NoSuchRoute: "Not Found", MethodNotAllowed: "Method Not Allowed"}


class ScriptNotFound(MfluxError):
    """The request names a script that does not exist."""

    code, status = "SCRIPT_NOT_FOUND", 422


class WebuiError(MfluxError):
    """An error with a message of SD-WebUI. `name`: the Python exception it shows; `like`: our error with that code."""

    code, status = "CLASSIC_FAULT", 500

    def __init__(self, message: str, *, name: str, like: type[MfluxError], status: int = 500) -> None:
        super().__init__(message)
        self.name = name
        self.like = like
        self.shown_status = status


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Return the documented error with SD-WebUI's keys added. Its clients compare `detail` with the exact messages."""
    content = {**json.loads(bytes(default_error_shape(error, request_id).body)), "body": "", "errors": ""}
    match error:
        case WrongKind():
            content["detail"] = list(error.problems)
        case WebuiError():
            return _webui_response(error, content)
        case Unauthorized():
            content |= {"error": "HTTPException", "detail": error.message}
        case _:
            content["detail"] = WORDS.get(type(error), error.message)
    return JSONResponse(content, error.status)


def _webui_response(error: WebuiError, content: dict[str, Any]) -> JSONResponse:
    message_fields = (
        {"detail": error.message} if error.name == "HTTPException" else {"detail": "", "errors": error.message}
    )
    return JSONResponse({**content, "error": error.name, "code": error.like.code, **message_fields}, error.shown_status)
