"""/sdapi/v1: bodies read as loosely as SD-WebUI reads them, and checked against a schema."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from mflux_api.errors import InvalidRequest, MfluxError, UnsupportedMedia
from mflux_api.web.body import BodyReader

M = TypeVar("M", bound=BaseModel)
# Out of range: documented as 400. Everything else is a value of the wrong kind: SD-WebUI's 422.
OUT_OF_RANGE = {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}


class WrongKind(MfluxError):
    """A value is of the wrong kind, or the body is no JSON; `problems` as SD-WebUI lists them."""

    code, status = "WRONG_KIND", 422

    def __init__(self, message: str, problems: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.problems = problems


async def read_form(reader: BodyReader, request: Request, model: type[M]) -> M:
    """The body as a checked form.

    Raises WrongKind, InvalidRequest for what is out of range, UnsupportedMedia, BodyTooLarge, BodyTooSlow.
    """
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    # No web page can leave the header out, so this lets no foreign one in.
    if kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMedia("Send JSON, with the header Content-Type: application/json.")
    return validate_form(model, await read_json_object(reader, request))


async def read_json_object(reader: BodyReader, request: Request) -> dict[str, Any]:
    """The body as a JSON object; nothing at all is an empty one. Raises WrongKind, BodyTooLarge, BodyTooSlow."""
    try:
        return await reader.read_object(request)
    except InvalidRequest as error:
        problem = {"loc": ["body"], "msg": error.message, "type": "value_error.jsondecode"}
        raise WrongKind(error.message, [problem]) from None


def validate_form(model: type[M], content: dict[str, Any]) -> M:
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
