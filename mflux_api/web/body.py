"""Read request bodies with limits on size and silence, parse them as JSON and validate them."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mflux_api.errors import BodyTooLarge, BodyTooSlow, InvalidRequest, UnsupportedMedia

M = TypeVar("M", bound=BaseModel)
MEBIBYTE = 1024**2
SHOWN = 40
FILES, FIELDS = 20, 100
# Values of Content-Encoding that name no compression. "utf-8" is a mistake of some clients.
UNCOMPRESSED = frozenset({"", "identity", "utf-8", "utf8"})
# The first bytes of files of gzip and zstd, which are no JSON.
COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")


@dataclass(frozen=True)
class BodyReader:
    """Reader of request bodies. `limit`: largest body in bytes. `seconds`: the longest pause of a body that arrives."""

    limit: int
    seconds: float

    async def read_json(self, request: Request, model: type[M]) -> M:
        """Read a JSON body and validate it against a model.

        Raises InvalidRequest, BodyTooLarge, BodyTooSlow, UnsupportedMedia.
        """
        # CSRF protection: other web pages cannot send this content type without a CORS preflight request.
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json" and not kind.endswith("+json"):
            raise UnsupportedMedia("Send JSON, with the header Content-Type: application/json.")
        return validate(model, await self.read_object(request))

    async def read_object(self, request: Request) -> dict[str, Any]:
        """Read a JSON object, whatever the Content-Type. An empty body is an empty object.

        Raises InvalidRequest, BodyTooLarge, BodyTooSlow.
        """
        data = await self.read_bytes(request)
        try:
            content = await asyncio.to_thread(_parse_json, data) if len(data) > MEBIBYTE else _parse_json(data or b"{}")
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(_explain_parse_error(data, error), field="body") from None
        if not isinstance(content, dict):
            raise InvalidRequest("The body must be a JSON object: {...}.", field="body")
        return content

    async def read_form(self, request: Request) -> FormData:
        """Read a multipart form. Raises InvalidRequest, BodyTooLarge, BodyTooSlow."""
        data = await self.read_bytes(request)

        async def stream_data() -> AsyncGenerator[bytes, None]:
            yield data

        parser = MultiPartParser(
            request.headers, stream_data(), max_files=FILES, max_fields=FIELDS, max_part_size=self.limit
        )
        try:
            return await parser.parse()
        except (MultiPartException, KeyError, ValueError):
            raise InvalidRequest("The body is not a valid multipart form.", field="body") from None

    async def read_bytes(self, request: Request) -> bytes:
        """Read the raw body. Raises InvalidRequest, UnsupportedMedia, BodyTooLarge, BodyTooSlow."""
        _require_uncompressed(request)
        parts, size = [], 0
        now = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(self.seconds) as silence:
                async for part in request.stream():
                    silence.reschedule(now() + self.seconds)
                    size += len(part)
                    if size > self.limit:
                        raise BodyTooLarge(f"The body may have at most {self.limit // MEBIBYTE} MiB.", limit=self.limit)
                    parts.append(part)
        except TimeoutError:
            raise BodyTooSlow(f"Nothing of the body arrived for {self.seconds:g} seconds.") from None
        except ClientDisconnect:
            raise InvalidRequest("The connection was closed before the body had arrived.") from None
        return b"".join(parts)


def _require_uncompressed(request: Request) -> None:
    """Raise UnsupportedMedia for a compressed body."""
    named = ", ".join(request.headers.getlist("content-encoding"))
    if any(each.strip().lower() not in UNCOMPRESSED for each in named.split(",")):
        raise UnsupportedMedia(f"The body is compressed (Content-Encoding: {named[:SHOWN]}). Send it uncompressed.")


def _explain_parse_error(data: bytes, error: Exception) -> str:
    """Return why bytes are not JSON."""
    if data.startswith(COMPRESSED):
        return "The body is compressed. Send the JSON uncompressed."
    if isinstance(error, UnicodeDecodeError):
        return f"The body is not UTF-8 (byte {error.start}). Encode the JSON as UTF-8."
    if b"\0" in data[:4]:
        return "The body is not UTF-8 but UTF-16 or UTF-32. Encode the JSON as UTF-8."
    return "The body is not valid JSON."


def _parse_json(data: bytes) -> Any:
    """Parse JSON. Raises ValueError, RecursionError."""
    content = json.loads(data.decode("utf-8-sig"))
    if b"\\ud" in data or b"\\uD" in data:
        # Reject lone surrogates: they cannot be encoded as UTF-8, so neither stored nor sent back.
        json.dumps(content, ensure_ascii=False).encode()
    return content


def validate(model: type[M], content: dict[str, Any]) -> M:
    """Validate content against a model. Raises InvalidRequest, which names the first invalid field and the reason."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        problem = first["msg"].removeprefix("Value error, ")
        raise InvalidRequest(f"{field}: {problem}.", field=field) from None


def parse_query(request: Request, model: type[M]) -> M:
    """Validate the query string against a model. Parameters without a value count as missing. Raises InvalidRequest."""
    return validate(model, {name: value for name, value in request.query_params.items() if value})
