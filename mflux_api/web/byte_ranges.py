"""Replies with an ETag and support for a single byte range (RFC 9110, sections 13 and 14)."""

import hashlib
import re

from starlette.requests import Request
from starlette.responses import Response

RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def range_response(request: Request, data: bytes, media_type: str) -> Response:
    """Reply with all bytes (200), one range (206), not modified (304) or an unsatisfiable range (416)."""
    etag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, max-age=3600"}
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    asked = RANGE.fullmatch(request.headers.get("range", "").strip())
    # If-Range names another version than this one: the client needs all of it.
    if asked is None or asked.groups() == ("", "") or request.headers.get("if-range", etag) != etag:
        return Response(data, media_type=media_type, headers=headers)
    start, end = _resolve_range(asked[1], asked[2], len(data))
    if start >= len(data) or end < start:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(data)}"})
    part = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, {**headers, "Content-Range": part}, media_type)


def _resolve_range(first: str, last: str, size: int) -> tuple[int, int]:
    """Return the first and last byte of a range. Without `first`, `last` is the number of bytes from the end."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last), size - 1) if last else size - 1
