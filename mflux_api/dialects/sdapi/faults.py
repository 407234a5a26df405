"""/sdapi/v1: errors in SD-WebUI's words where it has words of its own, and bodies read as loosely as it does."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from mflux_api.errors import InvalidRequest, MethodNotAllowed, MfluxError, NoSuchRoute, Unauthorized, UnsupportedMedia
from mflux_api.web.body import BodyReader
from mflux_api.web.faults import plain_shape

TAG = "sdapi"
JSON = "application/json"
M = TypeVar("M", bound=BaseModel)
# Out of range: documented as 400. Everything else is a value of the wrong kind: SD-WebUI's 422.
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
WORDS = {NoSuchRoute: "Not Found", MethodNotAllowed: "Method Not Allowed"}


class WrongKind(MfluxError):
    """A value is of the wrong kind, or the body is no JSON; `problems` as SD-WebUI lists them."""

    code, status = "WRONG_KIND", 422

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class ScriptNotFound(MfluxError):
    """A script that is not here was asked for."""

    code, status = "SCRIPT_NOT_FOUND", 422


class ClassicFault(MfluxError):
    """An error in SD-WebUI's own words. `name`: the Python exception it shows; `like`: what it is elsewhere here."""

    code, status = "CLASSIC_FAULT", 500

    def __init__(self, message: str, *, name: str, like: type[MfluxError], status: int = 500) -> None:
        super().__init__(message)
        self.name = name
        self.like = like
        self.shown_status = status


async def read(reader: BodyReader, request: Request, model: type[M]) -> M:
    """The body as a checked form.

    Raises WrongKind, InvalidRequest for what is out of range, UnsupportedMedia, BodyTooLarge, BodyTooSlow.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # No web page can leave the header out, so this lets no foreign one in.
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMedia("Send JSON, with the header Content-Type: application/json.")
    return checked(model, await json_object(reader, request))


async def json_object(reader: BodyReader, request: Request) -> dict[str, Any]:
    """The body as a JSON object; nothing at all is an empty one. Raises WrongKind, BodyTooLarge, BodyTooSlow."""
    try:
        return await reader.object(request)
    except InvalidRequest as error:
        problem = {"loc": ["body"], "msg": error.message, "type": "value_error.jsondecode"}
        raise WrongKind(error.message, [problem]) from None


def checked(model: type[M], content: dict[str, Any]) -> M:
    """Raises WrongKind, and InvalidRequest for what is only out of range."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    field = ".".join(map(str, first["loc"])) or "body"
    message = f"{field}: {first['msg'].removeprefix('Value error, ')}."
    # Who words a request as documented is answered as documented.
    documented = any(name in content for name in getattr(model, "DOCUMENTED", ()))
    if documented or all(each["type"] in OUT_OF_RANGE for each in found):
        raise InvalidRequest(message, field=field)
    problems = [{"loc": ["body", *each["loc"]], "msg": each["msg"], "type": each["type"]} for each in found]
    raise WrongKind(message, problems)


def is_address(picture: str) -> bool:
    return picture.strip().lower().startswith(("http://", "https://"))


def shape(error: MfluxError, request_id: str) -> JSONResponse:
    """The documented error with SD-WebUI's keys beside it; its clients compare `detail` with these very words."""
    content = {**json.loads(bytes(plain_shape(error, request_id).body)), "body": "", "errors": ""}
    match error:
        case WrongKind():
            content["detail"] = list(error.problems)
        case ClassicFault():
            return _classic(error, content)
        case Unauthorized():
            content |= {"error": "HTTPException", "detail": error.message}
        case _:
            content["detail"] = WORDS.get(type(error), error.message)
    return JSONResponse(content, error.status)


def _classic(error: ClassicFault, content: dict[str, Any]) -> JSONResponse:
    said = {"detail": error.message} if error.name == "HTTPException" else {"detail": "", "errors": error.message}
    return JSONResponse({**content, "error": error.name, "code": error.like.code, **said}, error.shown_status)
