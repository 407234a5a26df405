"""/sdapi/v1: read request bodies as leniently as SD-WebUI does, and check them against a schema."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from mflux_api.errors import InvalidRequest, MfluxError, UnsupportedMedia
from mflux_api.web.body import BodyReader

M = TypeVar("M", bound=BaseModel)
# Pydantic's errors for values out of range, which are documented as 400. All other errors are 422 as in SD-WebUI.
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


class WrongKind(MfluxError):
    """A value has the wrong type, or the body is not JSON. `problems`: the list that SD-WebUI sends as `detail`."""

    code, status = "WRONG_KIND", 422

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = problems


async def read_form(reader: BodyReader, request: Request, model: type[M]) -> M:
    """Read and validate the JSON body.

    Raises WrongKind, InvalidRequest for values out of range, UnsupportedMedia, BodyTooLarge, BodyTooSlow.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # A missing header is accepted: browsers always send it, so this gives web pages of other origins no access.
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMedia("Send JSON, with the header Content-Type: application/json.")
    return validate_form(model, await read_json_object(reader, request))


async def read_json_object(reader: BodyReader, request: Request) -> dict[str, Any]:
    """Read the body as a JSON object; an empty body is {}. Raises WrongKind, BodyTooLarge, BodyTooSlow."""
    try:
        return await reader.read_object(request)
    except InvalidRequest as error:
        problem = {"loc": ["body"], "msg": error.message, "type": "value_error.jsondecode"}
        raise WrongKind(error.message, [problem]) from None


def validate_form(model: type[M], content: dict[str, Any]) -> M:
    """Validate the content. Raises WrongKind, or InvalidRequest if values are only out of range."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    field = ".".join(map(str, first["loc"])) or "body"
    message = f"{field}: {first['msg'].removeprefix('Value error, ')}."
    # A request that uses documented fields gets the documented error.
    documented = any(name in content for name in getattr(model, "DOCUMENTED", ()))
    if documented or all(each["type"] in OUT_OF_RANGE for each in found):
        raise InvalidRequest(message, field=field)
    problems = [{"loc": ["body", *each["loc"]], "msg": each["msg"], "type": each["type"]} for each in found]
    raise WrongKind(message, problems)
