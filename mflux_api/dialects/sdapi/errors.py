"""/sdapi/v1: errors in SD-WebUI's words where it has words of its own."""

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
    """A script that is not here was asked for."""

    code, status = "SCRIPT_NOT_FOUND", 422


class WebuiError(MfluxError):
    """An error in SD-WebUI's own words. `name`: the Python exception it shows; `like`: what it is elsewhere here."""

    code, status = "CLASSIC_FAULT", 500

    def __init__(self, message: str, *, name: str, like: type[MfluxError], status: int = 500) -> None:
        super().__init__(message)
        self.name = name
        self.like = like
        self.shown_status = status


def is_url(picture: str) -> bool:
    return picture.strip().lower().startswith(("http://", "https://"))


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """The documented error with SD-WebUI's keys beside it; its clients compare `detail` with these very words."""
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
